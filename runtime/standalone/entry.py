"""What the standalone program starts with: the command line, or the process that decodes compressed pixels."""

import sys

from sccg_runtime.dicom.decoder import DECODE_WORKER

if __name__ == "__main__":
    if sys.argv[1:] == [DECODE_WORKER]:
        from sccg_runtime.dicom.worker import main as decode_images

        decode_images()
    else:
        from sccg_runtime.cli import start

        sys.exit(start())

"""``python -m sccg_compress``."""

from sccg_compress.cli import main

if __name__ == "__main__":
    main()

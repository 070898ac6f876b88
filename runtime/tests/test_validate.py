"""The validators find nothing in an output that they did not find in its source, whatever kind the source is."""

import shutil
import subprocess

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import JPEG2000Lossless, JPEGLSNearLossless, RLELossless

from sccg_runtime.bundle import read_bundle
from sccg_runtime.convert import convert_series

NOT_YET_KNOWN = "(0008,001c)"  # SyntheticData is younger than the checkers' dictionary
pytestmark = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("dciodvfy", "dcentvfy", "dcmdump", "dcmftest")),
    reason="dciodvfy and dcentvfy (Debian package dicom3tools) or dcmdump and dcmftest (dcmtk) are not installed",
)
KINDS = {
    "plain": {},
    "rle": {},
    "jpeg 2000": {},
    "near-lossless": {},
    "monochrome1": {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11},
    "12 bits": {"BitsStored": 12, "HighBit": 11},
    "padded": {"PixelPaddingValue": 0},
    "unicode": {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "王^小東"},
    "tilted": {"ImageOrientationPatient": [1, 0, 0, 0, 0.9483237, -0.3173047]},
    "empty": {"PatientBirthDate": "", "AccessionNumber": "", "SliceThickness": ""},
    "enhanced": {},
}
COMPRESSED = {"rle": RLELossless, "jpeg 2000": JPEG2000Lossless, "near-lossless": JPEGLSNearLossless}


def errors(tool, paths):
    result = subprocess.run([*tool, *paths], capture_output=True, text=True, errors="replace", check=False)
    return {line for line in (result.stdout + result.stderr).splitlines() if line.startswith("Error")}


@pytest.mark.parametrize("modality", ["MR", "CT"])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_of_every_kind_of_input_are_valid(make, bundle_file, tmp_path, kind, modality):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    stack = np.stack([np.rint(make.head(seed=index) * 1800).astype(np.uint16) for index in range(2)])
    if kind == "monochrome1":  # no signal is white
        stack = 4095 - stack
    if kind == "enhanced":
        make.save(make.enhanced(modality, stack), source / "multi.dcm")
    else:
        for index, stored in enumerate(stack):
            made = make.dataset(modality, index, stored, **KINDS[kind])
            if kind in COMPRESSED:
                made.compress(COMPRESSED[kind], generate_instance_uid=False)
            make.save(made, source / f"{index}.dcm")
    contract = make.contract() if modality == "MR" else make.ct2mr()
    convert_series(source, out, read_bundle(bundle_file(contract)), threads=1)
    made = sorted(out.iterdir())
    before = set().union(*(errors(["dciodvfy", "-new"], [path]) for path in source.iterdir()))
    after = set().union(*(errors(["dciodvfy", "-new"], [path]) for path in made))
    assert {line for line in after - before if NOT_YET_KNOWN not in line} == set()
    assert errors(["dcentvfy"], made) == set()
    shown = subprocess.run(["dcmftest", *made], capture_output=True, text=True, check=False).stdout
    assert shown.count("yes:") == len(made) == 2
    dumped = subprocess.run(["dcmdump", *made], capture_output=True, text=True, errors="replace", check=True)
    assert dumped.stderr == ""  # where it warns of what it cannot read or does not fit
    assert dumped.stdout.count("SYNTHETIC") >= len(made)
    assert str(dcmread(made[0]).PatientName) == str(dcmread(next(source.iterdir())).PatientName)

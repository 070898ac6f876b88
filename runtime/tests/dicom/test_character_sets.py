import shutil
import subprocess

import numpy as np
import pytest
from pydicom import dcmread

from sccg_runtime.bundle import read_bundle
from sccg_runtime.convert import convert_series
from sccg_runtime.errors import SeriesError


@pytest.mark.parametrize(
    ("declared", "name"),
    [
        ("ISO_IR 192", "Müller^Иван=王^小東"),
        ("ISO_IR 100", "Muster^Änne"),
        ("ISO_IR 144", "Люкceмбypг"),
        ("GB18030", "王^小东"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    ],
)
@pytest.mark.parametrize("multi_frame", [False, True])
def test_names_in_any_character_set_arrive_unchanged(make, bundle_file, tmp_path, declared, name, multi_frame):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    stack = np.stack([np.rint(make.head(seed=index) * 1000).astype(np.uint16) for index in range(2)])
    text = {"SpecificCharacterSet": declared, "PatientName": name, "StudyDescription": "plain"}
    text |= {"Manufacturer": "ACME"}
    if multi_frame:
        made = make.enhanced("MR", stack, **text)
        made[0x0019, 0x1001].value = "plain"
        make.save(made, source / "multi.dcm")
    else:
        for index, stored in enumerate(stack):
            made = make.dataset("MR", index, stored, **text)
            made[0x0019, 0x1001].value = "plain"
            make.save(made, source / f"{index}.dcm")
    convert_series(source, out, read_bundle(bundle_file()))
    for path in out.iterdir():
        read = dcmread(path)
        assert str(read.PatientName) == name
        assert read.SpecificCharacterSet == (declared if isinstance(declared, str) else ["", declared[1]])
    if shutil.which("dcmftest"):
        shown = subprocess.run(["dcmftest", *out.iterdir()], capture_output=True, text=True, check=False).stdout
        assert shown.count("yes:") == 2


@pytest.mark.parametrize("multi_frame", [False, True])
def test_a_name_that_does_not_fit_its_character_set_is_not_changed_but_refused(
    make, bundle_file, tmp_path, multi_frame
):
    source = tmp_path / "in"
    source.mkdir()
    stack = np.stack([np.rint(make.head(seed=index) * 1000).astype(np.uint16) for index in range(2)])
    text = {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Mü4711"}
    if multi_frame:
        make.save(make.enhanced("MR", stack, **text), source / "multi.dcm")
    else:
        for index, stored in enumerate(stack):
            make.save(make.dataset("MR", index, stored, **text), source / f"{index}.dcm")
    for path in source.iterdir():  # what an archive that only rewrites the tag leaves
        path.write_bytes(path.read_bytes().replace(b"ISO_IR 100", b"ISO_IR 192"))
    with pytest.raises(SeriesError, match="PatientName does not fit the SpecificCharacterSet") as caught:
        convert_series(source, tmp_path / "out", read_bundle(bundle_file()))
    assert "4711" not in str(caught.value)
    assert not (tmp_path / "out").exists()

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
    absent = ("StudyID", "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator")
    if multi_frame:
        made = make.enhanced("MR", stack, **text)
        made[0x0019, 0x1001].value = "plain"
        for keyword in absent:
            delattr(made, keyword)
        make.save(made, source / "multi.dcm")
    else:
        for index, stored in enumerate(stack):
            made = make.dataset("MR", index, stored, **text, **dict.fromkeys(absent))
            made[0x0019, 0x1001].value = "plain"
            make.save(made, source / f"{index}.dcm")
    convert_series(source, out, read_bundle(bundle_file()))
    for path in out.iterdir():
        read = dcmread(path)
        assert str(read.PatientName) == name
        assert read.StudyID == read.AccessionNumber == ""
        assert read.SpecificCharacterSet == (declared if isinstance(declared, str) else ["", declared[1]])
    if shutil.which("dcmftest"):
        shown = subprocess.run(["dcmftest", *out.iterdir()], capture_output=True, text=True, check=False).stdout
        assert shown.count("yes:") == 2


@pytest.mark.parametrize(
    ("declared", "encoding", "name", "history"),
    [
        ("ISO_IR 13", "shift_jis", "ﾔﾏﾀﾞ^ﾀﾛｳ", "ﾍﾟｰｽﾒｰｶｰ ari"),
        ("ISO_IR 13", "shift_jis", "山田^太郎", "plain"),
        (["", "ISO 2022 IR 149"], "korean", "홍^길동", "조영제\r\n알레르기"),
    ],
)
@pytest.mark.parametrize("multi_frame", [False, True])
def test_what_cannot_be_written_as_it_was_read_arrives_in_utf8(
    make, bundle_file, tmp_path, declared, encoding, name, history, multi_frame
):
    """pydicom cannot write these, so their bytes are put in the place of others as long."""

    def encoded(text):
        if encoding == "shift_jis":
            return text.encode(encoding)
        lines = (b"\x1b$)C" + line.encode("euc_kr") for line in text.split("\r\n"))  # each line begins anew
        return b"\r\n".join(lines)

    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    stack = np.stack([np.rint(make.head(seed=index) * 1000).astype(np.uint16) for index in range(2)])
    put = {
        letter * (len(encoded(text)) + len(encoded(text)) % 2): encoded(text)
        for letter, text in (("X", name), ("Y", history))
    }
    standing = dict(zip(("PatientName", "AdditionalPatientHistory"), put, strict=True))
    text = {"SpecificCharacterSet": declared, "StudyDescription": "plain", **standing}
    images = (
        [make.enhanced("MR", stack, **text)]
        if multi_frame
        else [make.dataset("MR", index, stored, **text) for index, stored in enumerate(stack)]
    )
    for index, made in enumerate(images):
        made[0x0019, 0x1001].value = "plain"
        path = make.save(made, source / f"{index}.dcm")
        for before, after in put.items():
            path.write_bytes(path.read_bytes().replace(before.encode(), after.ljust(len(before))))
    convert_series(source, out, read_bundle(bundle_file()))
    for path in out.iterdir():
        read = dcmread(path)
        assert (str(read.PatientName), read.AdditionalPatientHistory) == (name, history)
        assert read.SpecificCharacterSet == "ISO_IR 192"
    assert len(list(out.iterdir())) == 2


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

import zipfile

import pytest

from sccg_runtime.dicom import source
from sccg_runtime.dicom.header import read_header
from sccg_runtime.dicom.source import entries
from sccg_runtime.errors import InputError


def names(found):
    return [entry.name for entry in found]


def content(entry):
    with entry.open() as stream:
        return stream.read()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "b.dcm").write_bytes(b"b")
    (tmp_path / "in" / "deep" / "a.dcm").write_bytes(b"a")
    (tmp_path / "in" / ".hidden").write_bytes(b"h")
    return tmp_path / "in"


def test_a_folder_is_searched_with_its_sub_folders(folder):
    found = entries(folder)
    assert names(found) == ["b.dcm", "a.dcm"]
    assert [content(entry) for entry in found] == [b"b", b"a"]


def test_links_to_folders_are_not_followed_but_counted(folder):
    (folder / "again").symlink_to(folder)
    (folder / "deep" / "up").symlink_to("..")
    found = {entry.name: content(entry) for entry in entries(folder)}
    assert found == {"again": b"", "b.dcm": b"b", "a.dcm": b"a", "up": b""}


def test_a_broken_link_is_no_silent_gap(folder):
    (folder / "c.dcm").symlink_to(folder / "gone.dcm")
    with pytest.raises(InputError, match=r"c\.dcm is a link to a file that is not there"):
        entries(folder)


def test_a_zip_is_read_in_memory_and_its_paths_lead_nowhere(tmp_path):
    path = tmp_path / "series.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../evil.dcm", b"e")
        archive.writestr("/etc/passwd", b"p")
        archive.writestr("c\\d\\w.dcm", b"w")
    before = sorted(tmp_path.rglob("*"))
    found = entries(path)
    assert sorted(names(found)) == ["evil.dcm", "passwd", "w.dcm"]
    assert sorted(content(entry) for entry in found) == [b"e", b"p", b"w"]
    assert sorted(tmp_path.rglob("*")) == before


def test_zips_that_are_too_large_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.dcm", bytes(5000))
    monkeypatch.setattr(source, "MAX_FILE_BYTES", 4000)
    with pytest.raises(InputError, match=r"zeros\.dcm .* larger"):
        content(entries(path)[0])
    monkeypatch.setattr(source, "MAX_ZIP_BYTES", 4000)
    with pytest.raises(InputError, match="holds more"):
        entries(path)


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_member_is_refused(tmp_path, kind):
    path = tmp_path / "series.zip"
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("a.dcm", bytes(range(256)) * 20)
    damaged = bytearray(path.read_bytes())
    for place in range(70, 110):
        damaged[place] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=r"a\.dcm in series\.zip is damaged"):
        content(entries(path)[0])


def test_a_file_that_is_not_dicom_is_not_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "MAX_FILE_BYTES", 4000)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "video.mp4").write_bytes(bytes(5000))
    with zipfile.ZipFile(tmp_path / "in.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("video.mp4", bytes(5000))
    for where in ("in", "in.zip"):
        (found,) = entries(tmp_path / where)
        assert found.head() == bytes(132)
        assert read_header(found) is None
        with pytest.raises(InputError, match="larger"):
            content(found)


def test_too_many_files_are_refused(folder, monkeypatch):
    monkeypatch.setattr(source, "MAX_FILES", 1)
    with pytest.raises(InputError, match="more than 1"):
        entries(folder)


def test_nothing_to_read_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such"):
        entries(tmp_path / "none")
    with pytest.raises(InputError, match="holds no file"):
        entries(tmp_path)

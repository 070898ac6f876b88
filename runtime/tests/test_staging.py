import numpy as np
import pytest

from sccg_runtime.errors import InputError
from sccg_runtime.files import whole_folder
from sccg_runtime.staging import check_earlier, check_output


@pytest.fixture
def synthetic(make):
    """Write an image as a conversion leaves it."""
    marks = {"SyntheticData": "YES", "ManufacturerModelName": "sccg-runtime"}
    return lambda path: make.save(make.dataset("CT", 0, np.zeros((8, 8), np.uint16), **marks), path)


def test_a_failure_leaves_nothing_and_keeps_what_was(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "old.dcm").write_text("old")

    def interrupted():
        with whole_folder(out, replaceable=check_earlier) as folder:
            (folder / "0001.dcm").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [item.name for item in tmp_path.iterdir()] == ["out"]
    assert [item.name for item in out.iterdir()] == ["old.dcm"]


def test_what_was_there_is_replaced_whole(tmp_path, synthetic):
    out = tmp_path / "out"
    out.mkdir()
    synthetic(out / "old.dcm")
    with whole_folder(out, replaceable=check_earlier) as folder:
        (folder / "0001.dcm").write_text("new")
        assert (out / "old.dcm").exists()
    assert [item.name for item in out.iterdir()] == ["0001.dcm"]
    assert [item.name for item in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("force", [True, False])
@pytest.mark.parametrize("existed", [True, False])
def test_what_comes_in_meanwhile_is_not_deleted(tmp_path, force, existed):
    out = tmp_path / "out"
    if existed:
        out.mkdir()

    def work():
        with whole_folder(out, replaceable=check_earlier if force else None) as folder:
            (folder / "0001.dcm").write_text("new")
            out.mkdir(exist_ok=True)
            (out / "0001.dcm").write_text("another program's")

    with pytest.raises(InputError, match="something else" if force else "cannot be put in place"):
        work()
    assert (out / "0001.dcm").read_text() == "another program's"
    assert [item.name for item in tmp_path.iterdir()] == ["out"]


def test_outputs_that_would_destroy_something_are_refused(tmp_path, synthetic):
    source = tmp_path / "a" / "source"
    source.mkdir(parents=True)
    (source / "1.dcm").write_text("")
    for out in (source, source / "inside", tmp_path / "a", tmp_path):
        with pytest.raises(InputError, match="apart"):
            check_output(out, source, force=True)
    out = tmp_path / "out"
    check_output(out, source, force=False)
    out.mkdir()
    check_output(out, source, force=False)
    with pytest.raises(InputError, match="--force"):
        check_output(out, source, force=False, file=True)
    (tmp_path / "link").symlink_to(out)
    with pytest.raises(InputError, match="--force"):
        check_output(tmp_path / "link", source, force=False)
    synthetic(out / "0001.dcm")
    with pytest.raises(InputError, match="--force"):
        check_output(out, source, force=False)
    check_output(out, source, force=True)
    (out / "thesis.docx").write_text("")
    with pytest.raises(InputError, match="something else"):
        check_output(out, source, force=True)
    with pytest.raises(InputError, match="not a folder"):
        check_output(out / "thesis.docx", source, force=True)


@pytest.mark.parametrize("force", [True, False])
def test_the_folder_that_the_caller_stands_in_is_not_taken_away(tmp_path, synthetic, monkeypatch, force):
    (tmp_path / "source").mkdir()
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.chdir(out)
    with pytest.raises(InputError, match="is the current folder"):
        check_output(out, tmp_path / "source", force=force)
    synthetic(out / "0001.dcm")
    with pytest.raises(InputError, match="is the current folder" if force else "--force"):
        check_output(out, tmp_path / "source", force=force)


@pytest.mark.parametrize("force", [True, False])
def test_a_current_folder_that_may_not_be_searched_is_no_hindrance(tmp_path, monkeypatch, force):
    for name in ("source", "out"):
        (tmp_path / name).mkdir()

    def closed(path, other):
        raise PermissionError(13, "Permission denied", other)

    monkeypatch.setattr("pathlib.Path.samefile", closed)
    check_output(tmp_path / "out", tmp_path / "source", force=force)


def test_a_file_that_cannot_be_read_is_not_called_another_kind(tmp_path, monkeypatch):
    (tmp_path / "source").mkdir()
    (tmp_path / "ct.nii.gz").write_bytes(b"closed")

    def closed(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("gzip.open", closed)
    with pytest.raises(InputError, match=r"ct\.nii\.gz cannot be looked into: Permission denied"):
        check_output(tmp_path / "ct.nii.gz", tmp_path / "source", force=True, file=True)


@pytest.mark.parametrize("content", ["acquired", "text", "damaged", "link", "another program's"])
def test_a_folder_of_anything_but_synthetic_images_is_not_replaced(tmp_path, make, synthetic, content):
    source, out = tmp_path / "source", tmp_path / "out"
    for folder in (source, out):
        folder.mkdir()
    synthetic(out / "0001.dcm")
    path = out / "0002.dcm"
    if content == "acquired":  # those that a working folder's links lead to, for example
        make.save(make.dataset("MR", 0, np.zeros((8, 8), np.uint16)), path)
        (source / "1.dcm").symlink_to(path)
    elif content == "another program's":
        make.save(make.dataset("CT", 0, np.zeros((8, 8), np.uint16), SyntheticData="YES"), path)
    elif content == "text":
        path.write_text("no image")
    elif content == "damaged":  # the length of the first element
        whole = (out / "0001.dcm").read_bytes()
        path.write_bytes(whole[:138] + b"\x03\x00" + whole[140:])
    else:
        path.symlink_to(out / "0001.dcm")
    with pytest.raises(InputError, match="something else than synthetic images"):
        check_output(out, source, force=True)


def test_a_mount_point_is_refused_before_any_work(tmp_path, monkeypatch):
    (tmp_path / "source").mkdir()
    (tmp_path / "out").mkdir()
    monkeypatch.setattr("os.path.ismount", lambda path: True)
    for force in (True, False):
        with pytest.raises(InputError, match="mount point"):
            check_output(tmp_path / "out", tmp_path / "source", force=force)

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from sccg_runtime.files import naming, replacing, sha256, whole_folder, write_bytes


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "file.json"
    write_bytes(path, b"old")

    def fail():
        with replacing(path) as temporary:
            assert temporary.suffix == ".json"
            temporary.write_bytes(b"half")
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    assert path.read_bytes() == b"old"
    write_bytes(path, b"new")
    assert [item.read_bytes() for item in path.parent.iterdir()] == [b"new"]


def test_an_error_that_names_no_file_names_the_one_that_was_wanted(tmp_path):
    for given, told in ((None, "file.json"), ("other", "other")):
        with pytest.raises(OSError, match="full") as caught, replacing(tmp_path / "file.json"):
            raise OSError(errno.ENOSPC, "full", given)
        assert caught.value.filename.endswith(told)
    with pytest.raises(OSError, match="not an errno"), naming(tmp_path):
        raise OSError("not an errno")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in folders here")
def test_what_is_no_file_is_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(OSError, match="not a file"):
            write_bytes(tmp_path / name, b"new")
    assert {item.name for item in tmp_path.iterdir()} == {"pipe", "folder"}
    assert (tmp_path / "pipe").is_fifo()


def test_hashes_of_bytes_and_files_agree(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(b"abc") == sha256(tmp_path / "a") == expected


def test_the_folder_appears_when_all_is_written(tmp_path):
    out = tmp_path / "deep" / "out"
    with whole_folder(out) as folder:
        (folder / "0001.dcm").write_text("new")
        assert not out.exists()
    assert [item.name for item in out.iterdir()] == ["0001.dcm"]
    assert [item.name for item in out.parent.iterdir()] == ["out"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_a_closed_folder_stays_closed(tmp_path):
    out = tmp_path / "out"
    out.mkdir(mode=0o700)
    with whole_folder(out) as folder:
        (folder / "0001.dcm").write_text("new")
    assert out.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_killed_process_leaves_no_output_folder(tmp_path):
    code = """
import pathlib, sys, time
from sccg_runtime.files import whole_folder
with whole_folder(pathlib.Path(sys.argv[1])) as folder:
    (folder / "0001.dcm").write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""
    out = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", code, out], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    time.sleep(0.05)
    assert not out.exists()

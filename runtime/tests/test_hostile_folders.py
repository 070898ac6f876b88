"""What no scanner writes into a folder: one line that says what to do, or a conversion that tells of it."""

import os
import socket
import sys
from pathlib import Path

import pytest

from sccg_runtime.cli import main

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX pipes, sockets and links")


@pytest.fixture
def convert(bundle_file, tmp_path, capsys, monkeypatch):
    """Convert a folder; gives the exit code and what was said."""
    monkeypatch.chdir(tmp_path)  # a socket's path must be short

    def run(source, out="out", bundle=None):
        arguments = ["convert", str(source), str(out), "--bundle", str(bundle or bundle_file()), "--threads", "1"]
        code = main(arguments)
        return code, capsys.readouterr().err

    return run


def errors(said):
    return [line for line in said.splitlines() if line.startswith("error: ")]


def a_socket(path):
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(path))


MAKERS = {
    "pipe": os.mkfifo,
    "socket": a_socket,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "link to a folder": lambda path: path.symlink_to("."),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_what_is_no_file_is_refused_where_it_is_called_like_an_image_and_counted_elsewhere(convert, series, kind):
    source = series()
    MAKERS[kind](source / "notes")
    code, said = convert(source)
    assert code == 0
    assert "1 files or links to folders are not DICOM and were left out" in said
    MAKERS[kind](source / "IM900.dcm")
    assert convert(source, "other") == (2, "error: IM900.dcm is not DICOM or is cut off: replace or remove it\n")


@pytest.mark.skipif(sys.platform != "linux", reason="a file that cannot be read, even by root")
def test_a_file_that_the_disk_does_not_give_is_refused(convert, series):
    source = series()
    (source / "IM900").symlink_to("/proc/self/mem")
    code, said = convert(source)
    assert code == 2
    assert errors(said) == ["error: IM900: Input/output error: make it readable, or remove it"]


def test_a_loop_of_links_is_no_folder(convert, series):
    Path("one").symlink_to("two")
    Path("two").symlink_to("one")
    assert convert("one") == (2, "error: one: no such folder or file\n")
    assert convert(series(), "one") == (2, "error: one exists: give another name, or --force to replace it\n")
    code, said = convert(series(folder="in"), "one/out")
    assert code == 2
    assert errors(said)[0].startswith("error: out cannot be made: ")
    Path("in/IM900").symlink_to("IM900")
    code, said = convert("in")
    assert code == 2
    assert errors(said)[0].startswith("error: IM900: Too many levels of symbolic links: make it readable, or remove it")


def test_names_that_are_too_long_are_refused(convert, series):
    code, said = convert("x" * 300)
    assert (code, len(errors(said))) == (2, 1)
    assert errors(said)[0].endswith("File name too long: make it readable, or remove it")
    code, said = convert(series(), "x" * 300)
    assert code == 2
    assert errors(said)[0].endswith("cannot be made: File name too long")


@pytest.fixture
def deep(series):
    """A series with more folders in folders beside it than one path can name; they are gone afterwards."""
    source, levels, here = series(), 1200, Path.cwd()
    os.chdir(source)
    for _ in range(levels):
        Path("d").mkdir()
        os.chdir("d")
    os.chdir(here)
    yield source
    os.chdir(source)
    for _ in range(levels):
        os.chdir("d")
    for _ in range(levels):
        os.chdir("..")
        Path("d").rmdir()
    os.chdir(here)


def test_folders_in_folders_without_end_are_refused(convert, deep):
    code, said = convert(deep)
    assert code == 2
    assert errors(said) in (
        [f"error: {deep.name} holds folders in folders without end: name the series' own folder"],
        ["error: d: File name too long: make it readable, or remove it"],
    )


def test_what_may_not_be_looked_at_is_refused(convert, series, monkeypatch):
    """As in a folder that may be listed but not entered."""
    source, stat = series(), Path.stat

    def denied(path, **options):
        if path.name == "IM002.dcm":
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", denied)
    assert convert(source) == (2, "error: IM002.dcm: Permission denied: make it readable, or remove it\n")


def test_a_pipe_in_the_place_of_a_folder_or_a_bundle_is_not_waited_for(convert, series):
    os.mkfifo("pipe")
    code, said = convert("pipe")
    assert (code, said) == (2, "error: pipe is a pipe, a socket or a device: name a folder, a DICOM file or a zip\n")
    code, said = convert(series(), bundle="pipe")
    assert (code, said) == (2, "error: pipe is not a file: name the .sccg file itself\n")


def test_ten_thousand_small_files_and_empty_ones_are_counted(convert, series):
    source = series()
    for number in range(10_000):
        (source / f"note{number}.txt").write_bytes(b"x" * (number % 2))
    code, said = convert(source)
    assert code == 0
    assert "10000 files or links to folders are not DICOM and were left out" in said


def test_names_with_line_breaks_and_bytes_that_are_no_text_stay_on_one_line(convert, series):
    source = series()
    (source / "IM005.dcm").rename(source / os.fsdecode(b"IM\xff\nerror: 0.dcm"))
    assert convert(source)[0] == 0
    (source / "IM001.dcm").write_bytes(b"")
    (source / "IM001.dcm").rename(source / os.fsdecode(b"IM\xff\nerror: 1.dcm"))
    code, said = convert(source, "other")
    assert code == 2
    assert said == "error: IM??error: 1.dcm is not DICOM or is cut off: replace or remove it\n"


def test_a_file_that_is_still_being_written_is_refused(convert, series):
    source = series()
    last = max(source.iterdir())
    content = last.read_bytes()
    last.write_bytes(content[:-10])
    code, said = convert(source)
    assert code == 2
    assert errors(said)[0].startswith(f"error: {last.name} cannot be decoded: the pixels are cut off or damaged")
    last.write_bytes(content + bytes(10))  # bytes behind the image do no harm
    assert convert(source)[0] == 0

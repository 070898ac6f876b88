import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import JPEG2000Lossless, RLELossless

from sccg_runtime.cli import main
from sccg_runtime.dicom import decoder, worker
from sccg_runtime.dicom.decoder import close_workers, decode
from sccg_runtime.dicom.header import read_header
from sccg_runtime.dicom.pixels import read_plane
from sccg_runtime.dicom.source import entries
from sccg_runtime.errors import SeriesError

RAMP = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
START = "import sys; out = sys.stdout.buffer; out.write((3).to_bytes(8, 'little') + b'{}\\n'); out.flush(); "
READ = "import os; os.read(0, 9); "


@pytest.fixture(autouse=True)
def no_workers():
    close_workers()
    yield
    close_workers()


@pytest.fixture
def compressed(make):
    made = make.dataset("CT", 0, RAMP)
    made.compress(RLELossless, generate_instance_uid=False)
    return made


@pytest.fixture
def worker_that(monkeypatch):
    """Workers that greet and then do as told."""

    def replace(code):
        monkeypatch.setattr(decoder, "COMMAND", ("-c", START + READ + code))

    return replace


def test_uncompressed_pixels_need_no_process(make, monkeypatch):
    monkeypatch.setattr(decoder, "COMMAND", ("-c", "raise SystemExit"))
    np.testing.assert_array_equal(decode("a.dcm", make.dataset("CT", 0, RAMP)), RAMP)


def test_too_little_memory_is_not_called_damage(bundle_file, series, tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr("pydicom.pixels.utils.pixel_array", full)
    assert main(["convert", str(series()), str(tmp_path / "out"), "--bundle", str(bundle_file())]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert errors == ["error: not enough memory: end other programs and try again"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("where", ["pydicom.dcmread", "sccg_runtime.dicom.header.header_of"])
def test_too_little_memory_for_a_file_is_not_called_damage(make, tmp_path, monkeypatch, where):
    path = make.save(make.dataset("CT", 0, RAMP), tmp_path / "a.dcm")
    header = read_header(entries(path)[0])

    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr(where, full)
    with pytest.raises(MemoryError):
        read_header(entries(path)[0])
    if where == "pydicom.dcmread":
        with pytest.raises(MemoryError):
            read_plane(header, "CT")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limits of this kind")
def test_a_system_that_limits_no_address_space_decodes_all_the_same(monkeypatch):
    import resource

    asked = []

    def limit(which, _limits):
        asked.append(which)
        if which == resource.RLIMIT_AS:
            raise ValueError("current limit exceeds maximum limit")  # macOS

    monkeypatch.setattr(resource, "setrlimit", limit)
    worker._limit_memory()
    assert asked == [resource.RLIMIT_CORE, resource.RLIMIT_AS]


def test_one_worker_serves_all_images_and_ends_when_closed(compressed):
    for _ in range(3):
        np.testing.assert_array_equal(decode("a.dcm", compressed), RAMP)
    assert len(decoder._idle) == 1
    process = decoder._idle[0]._process
    close_workers()
    assert process.poll() is not None


@pytest.mark.parametrize("name", ["json.py", "numpy.py", "sccg_runtime.py"])
def test_nothing_is_imported_from_the_folder_that_the_caller_stands_in(compressed, tmp_path, monkeypatch, name):
    (tmp_path / name).write_text("import pathlib\npathlib.Path('ran').touch()\n")
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(decode("a.dcm", compressed), RAMP)
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", [11, 6, 9])
def test_a_crash_is_one_refused_image_and_the_next_one_works(compressed, monkeypatch, worker_that, number):
    with monkeypatch.context() as patch:
        patch.setattr(decoder, "COMMAND", ("-c", f"{START}{READ}os.kill(os.getpid(), {number})"))
        with pytest.raises(
            SeriesError, match=r"^a\.dcm cannot be decoded: the decoder crashed \(RLE Lossless\): replace"
        ):
            decode("a.dcm", compressed)
    np.testing.assert_array_equal(decode("a.dcm", compressed), RAMP)


def test_silence_ends_the_worker(compressed, monkeypatch, worker_that):
    worker_that("import time; time.sleep(60)")
    monkeypatch.setattr(decoder, "SILENCE_S", 0.3)
    began = time.perf_counter()
    with pytest.raises(SeriesError, match=r"a\.dcm cannot be decoded: the decoder gave no answer for 0\.3 s"):
        decode("a.dcm", compressed)
    assert time.perf_counter() - began < 5
    assert decoder._idle == []


def test_a_request_that_no_one_reads_ends_too(make, monkeypatch):
    made = make.dataset("CT", 0, np.random.default_rng(0).integers(0, 60000, (512, 512)).astype(np.uint16))
    made.compress(RLELossless, generate_instance_uid=False)
    monkeypatch.setattr(decoder, "COMMAND", ("-c", START + "import time; time.sleep(60)"))
    monkeypatch.setattr(decoder, "SILENCE_S", 0.3)
    with pytest.raises(SeriesError, match="no answer"):
        decode("a.dcm", made)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("(2**60).to_bytes(8, 'little')", "too long"),
        ("(5).to_bytes(8, 'little') + b'hello'", "makes no sense"),
        ("(2).to_bytes(8, 'little') + b'[]'", "makes no sense"),
        ("(2).to_bytes(8, 'little') + b'{}'", "cut off or damaged"),
        ("(9).to_bytes(8, 'little') + b'{}'", "crashed"),
    ],
)
def test_answers_that_make_no_sense_are_refused(compressed, worker_that, answer, reason):
    worker_that(f"out.write({answer}); out.flush()")
    with pytest.raises(SeriesError, match=reason):
        decode("a.dcm", compressed)


def test_an_image_of_another_size_than_its_header_says_is_refused(make):
    made = make.dataset("CT", 0, RAMP)
    made.compress(JPEG2000Lossless, generate_instance_uid=False)
    made.Rows = 32
    with pytest.raises(SeriesError, match=r"a\.dcm cannot be decoded"):
        decode("a.dcm", made)
    made.Rows, made.Columns = 65535, 65535
    with pytest.raises(SeriesError, match="more than any slice has: replace or remove it"):
        decode("a.dcm", made)


def test_a_conversion_with_a_crashing_decoder_ends_with_code_2_and_leaves_nothing(
    bundle_file, series, tmp_path, capsys, worker_that, make
):
    from pydicom import dcmread

    source = series()
    for path in source.iterdir():
        made = dcmread(path)
        made.compress(RLELossless, generate_instance_uid=False)
        make.save(made, path)
    worker_that("os.abort()")
    assert main(["convert", str(source), str(tmp_path / "out"), "--bundle", str(bundle_file())]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "the decoder crashed" in errors[0]
    assert not (tmp_path / "out").exists()


def test_the_worker_gets_nothing_of_the_patient(compressed, make):
    request = decoder._request(compressed)
    for secret in ("Muster", make.PATIENT_ID, compressed.SOPInstanceUID, compressed.StudyInstanceUID):
        assert secret.encode() not in request


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_worker_ends_with_its_parent():
    code = """
import sys, time
from sccg_runtime.dicom.decoder import _Worker
worker = _Worker()
print(worker._process.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 10
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(pid)


def _alive(pid):
    from pathlib import Path

    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_several_threads_have_a_worker_each(compressed):
    found = []
    threads = [threading.Thread(target=lambda: found.append(decode("a.dcm", compressed))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    for array in found:
        np.testing.assert_array_equal(array, RAMP)


@pytest.mark.skipif(not Path("/bin/true").exists(), reason="needs a program that does nothing")
@pytest.mark.parametrize("program", [None, "/bin/true"])
def test_a_decoder_that_does_not_start_is_no_fault_of_the_image(compressed, monkeypatch, program):
    monkeypatch.setattr(sys, "executable", program)
    with pytest.raises(SeriesError, match=r"no process for it \((this Python|the decoder crashed at its start)"):
        decode("a.dcm", compressed)

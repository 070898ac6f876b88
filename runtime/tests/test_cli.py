import json
import os
import signal
import subprocess
import sys

import pytest

from sccg_runtime.cli import main


def test_convert_writes_a_folder_and_says_what_was_done(bundle_file, series, tmp_path, capsys):
    code = main(["convert", str(series()), str(tmp_path / "out"), "--bundle", str(bundle_file()), "--threads", "1"])
    shown = capsys.readouterr()
    assert code == 0
    assert len(list((tmp_path / "out").iterdir())) == 5
    assert "5 slices of series 3" in shown.out
    assert "1 threads" in shown.out
    assert "warning: the bundle does not know its training pixel spacing" in shown.err
    assert "/5 slices" not in shown.err  # no progress without a terminal


def test_the_choice_and_each_rejection_are_printed_before_the_work(bundle_file, series, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    first = series(folder="in/a")
    change = {"SeriesInstanceUID": "1.2.3", "SeriesNumber": 7, "ImageType": ["DERIVED", "PRIMARY", "LOCALIZER"]}
    series(folder="in/b", slices=3, change=lambda index: change)
    series("CT", folder="in/c", slices=2)
    arguments = ["convert", str(first.parent), str(tmp_path / "out"), "--bundle", str(bundle_file())]
    assert main(arguments) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("converting series 3 (5 MR images")
    assert lines[0].endswith("the only series that fits")
    assert any(line.startswith("not converted: series 7") and line.endswith("is a localizer") for line in lines)
    assert any("the bundle takes MR images, this is CT" in line for line in lines)
    assert main([*arguments, "--force", "--series", "head", "--min-slices", "4"]) == 0
    assert "named by --series" in capsys.readouterr().err


@pytest.mark.parametrize("multi_frame", [False, True])
def test_all_that_is_printed_holds_nothing_of_the_patient(
    bundle_file, series, tmp_path, capsys, caplog, make, multi_frame
):
    import numpy as np

    folder = series(change=lambda index: {"SeriesDescription": "SECRET of Doe"})
    secret = {"SeriesInstanceUID": "1.2.3", "SeriesDescription": "SECRET of Doe", "SeriesNumber": 8}
    if multi_frame:
        stack = np.stack([np.rint(make.head(seed=index) * 1000).astype(np.uint16) for index in range(3)])
        for path in folder.iterdir():
            path.unlink()
        make.save(make.enhanced("MR", stack, **secret), folder / "multi.dcm")
    else:
        made = make.dataset("MR", 40, np.zeros((64, 64), np.uint16), ImageType=["A", "B", "LOCALIZER"], **secret)
        make.save(made, folder / "localizer.dcm")
    arguments = ["convert", str(folder), str(tmp_path / "out"), "--bundle", str(bundle_file()), "--json", "-"]
    with caplog.at_level("DEBUG"):
        assert main(arguments) == 0
        first = capsys.readouterr()
        assert main([*arguments, "--force", "--series", "nothing of the kind"]) == 2
    shown = "".join((*first, *capsys.readouterr(), caplog.text))
    assert "converting series" in shown
    for secret_text in ("SECRET", "Doe", "Muster", "Änne", make.PATIENT_ID, "1.2.3", "19700101", "Doctor"):
        assert secret_text not in shown


def test_names_of_files_reach_the_terminal_only_as_what_it_can_print(bundle_file, series, tmp_path):
    source = series(slices=1)
    (source / "IM001.dcm").rename(source / "한국\x1b[2J\n.dcm")
    command = [sys.executable, "-m", "sccg_runtime", "convert", source, tmp_path / "out", "--bundle", bundle_file()]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, check=False, env=environment)
    assert (done.returncode, len(list((tmp_path / "out").iterdir()))) == (0, 1)
    assert b"first file ???[2J?.dcm" in done.stdout
    assert b"\x1b" not in done.stdout + done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot remove or replace its own folder")
def test_the_folder_that_one_stands_in_is_named_in_the_refusal(bundle_file, series, tmp_path, capsys, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["convert", str(series()), ".", "--bundle", str(bundle_file())]) == 2
    assert "error: here is the current folder" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell closes the streams")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_program_without_streams_converts_all_the_same(bundle_file, series, tmp_path, closed):
    from pydicom import dcmread

    command = (
        f"{sys.executable} -m sccg_runtime convert {series()} {tmp_path / 'out'} --bundle {bundle_file()} {closed}"
    )
    assert subprocess.run(command, shell=True, capture_output=True, check=False).returncode == 0  # noqa: S602
    made = [dcmread(path) for path in (tmp_path / "out").iterdir()]
    assert [image.pixel_array.shape for image in made] == [(64, 64)] * 5


def test_json_goes_to_stdout_or_a_file(bundle_file, series, tmp_path, capsys):
    source, bundle = str(series()), str(bundle_file())
    assert main(["convert", source, str(tmp_path / "a"), "--bundle", bundle, "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["slices"] == 5
    assert set(result["ms"]) == {"read", "open", "decode", "infer", "write", "total"}
    assert result["ms"]["total"] > result["ms"]["infer"] > 0
    file = tmp_path / "result.json"
    assert main(["convert", source, str(tmp_path / "b"), "--bundle", bundle, "--json", str(file)]) == 0
    assert json.loads(file.read_text())["engine"]["precision_ran"] == {"fp32": 2}
    lost = str(tmp_path / "b")  # a folder
    capsys.readouterr()
    assert main(["convert", source, str(tmp_path / "c"), "--bundle", bundle, "--json", lost]) == 2
    assert "the JSON result cannot be written; the output is complete" in capsys.readouterr().err
    assert (tmp_path / "c" / "0001.dcm").is_file()


@pytest.mark.parametrize("where", ["out/result.json", "file/below/result.json"])
def test_json_that_cannot_be_written_is_told_before_the_work(bundle_file, series, tmp_path, capsys, where):
    (tmp_path / "file").touch()
    arguments = ["convert", str(series()), str(tmp_path / "out"), "--bundle", str(bundle_file())]
    assert main([*arguments, "--json", str(tmp_path / where)]) == 2
    assert "error: --json result.json" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_info_shows_what_a_bundle_is(bundle_file, capsys):
    path = bundle_file()
    assert main(["info", str(path)]) == 0
    shown = capsys.readouterr().out
    for part in ("mr2ct", "tiny", "64x64", "fp32", "MR percentile", "CT hu", path.name):
        assert part in shown
    assert main(["info", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["student"] == "tiny"


def test_info_says_that_an_engine_for_a_gpu_does_not_run_here(bundle_file, make, capsys):
    assert main(["info", str(bundle_file(make.contract(target="tensorrt-rtx", drift_measured_on="graph")))]) == 0
    printed = capsys.readouterr().out
    assert "needs an NVIDIA GPU, sccg-runtime cannot run it" in printed
    assert "measured on the graph" in printed


def test_info_lets_no_control_sequences_through(bundle_file, make, capsys):
    assert main(["info", str(bundle_file(make.contract(student="\x1b[2Jtiny")))]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_selftest_passes_or_leaves_with_3(bundle_file, capsys):
    assert main(["selftest", str(bundle_file())]) == 0
    assert "passed" in capsys.readouterr().out
    assert main(["selftest", str(bundle_file(error=0.1))]) == 3
    shown = capsys.readouterr()
    assert "FAILED" in shown.out
    assert shown.err.startswith("error: self-test failed")
    assert main(["selftest", str(bundle_file()), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"] is True


@pytest.mark.parametrize("case", ["no source", "no bundle", "damaged bundle", "out exists", "json"])
def test_bad_input_is_one_line_and_code_2(bundle_file, series, tmp_path, capsys, case):
    source, bundle, out, more = series(), bundle_file(), tmp_path / "out", []
    if case == "no source":
        source = tmp_path / "none"
    elif case == "no bundle":
        bundle = tmp_path / "none.sccg"
    elif case == "damaged bundle":
        bundle.write_bytes(b"no zip")
    elif case == "out exists":
        out.mkdir()
        (out / "0001.dcm").touch()
    else:
        more = ["--json", str(tmp_path / "models")]
    assert main(["convert", str(source), str(out), "--bundle", str(bundle), *more]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1


def test_a_refusal_is_code_3(bundle_file, series, tmp_path, capsys):
    code = main(["convert", str(series()), str(tmp_path / "out"), "--bundle", str(bundle_file(kind="nan"))])
    assert code == 3
    assert "slice 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_traceback_is_shown_only_with_debug(tmp_path):
    arguments = [sys.executable, "-m", "sccg_runtime", "info", str(tmp_path / "none.sccg")]
    plain = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (plain.returncode, len(plain.stderr.splitlines())) == (2, 1)
    debug = subprocess.run([*arguments, "--debug"], capture_output=True, text=True, check=False)
    assert "Traceback" in debug.stderr
    assert debug.returncode != 0


def test_usage_errors_are_code_2():
    for arguments in ([], ["convert"], ["unknown"], ["selftest", "x.sccg", "--threads", "0"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2


def test_help_answers_without_the_heavy_imports():
    code = """
import sys
from sccg_runtime.cli import main
try:
    main(["convert", "--help"])
except SystemExit:
    pass
assert not {"numpy", "pydicom", "openvino", "PIL"} & set(sys.modules)
"""
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "--allow-gaps" in shown


def test_the_program_keeps_out_what_its_libraries_would_import_for_nothing(bundle_file, series, tmp_path):
    code = """
import sys
from sccg_runtime.cli import start
assert start() == 0
loaded = {name for name, module in sys.modules.items() if module is not None}
assert {"openvino", "pydicom"} <= loaded
assert not {"openvino.tools.ovc", "openvino_telemetry", "gdcm"} & loaded
"""
    arguments = ["convert", series(slices=2), tmp_path / "out", "--bundle", bundle_file()]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)
    assert len(list((tmp_path / "out").iterdir())) == 2


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_with_130_and_leaves_nothing(bundle_file, series, tmp_path, number):
    code = """
import sys, time
import sccg_runtime.convert as module
write = module.write_file
def slow(*arguments):
    print("writing", flush=True)
    time.sleep(0.3)
    write(*arguments)
module.write_file = slow
from sccg_runtime.cli import main
sys.exit(main(sys.argv[1:]))
"""
    source, bundle, out = series(slices=20), bundle_file(), tmp_path / "out"
    arguments = [sys.executable, "-c", code, "convert", source, out, "--bundle", bundle]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline().startswith(b"writing")
        process.send_signal(number)
        try:
            errors = process.communicate(timeout=120)[1]
        finally:
            process.kill()
    assert process.returncode == 130
    assert errors.decode().strip().splitlines()[-1].startswith("interrupted")
    assert b"Traceback" not in errors
    assert [item.name for item in tmp_path.iterdir() if "out" in item.name] == []


def test_a_reader_that_stops_early_gives_no_traceback(bundle_file):
    command = f"{sys.executable} -m sccg_runtime info {bundle_file()} --json | true"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)  # noqa: S602
    assert "Traceback" not in result.stderr

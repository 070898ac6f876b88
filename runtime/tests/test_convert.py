import json
import logging
import re
import shutil
import subprocess
import threading
import time
import warnings
from itertools import pairwise

import numpy as np
import pytest
from pydicom import dcmread

from sccg_runtime import convert as convert_module
from sccg_runtime import pipeline
from sccg_runtime.errors import InputError, RefusedError, SeriesError
from sccg_runtime.intensity import mr_white
from sccg_runtime.statistics import Range

NOT_YET_KNOWN = "(0008,001c)"  # younger than the checkers' dictionary


def outputs(folder):
    return [dcmread(path) for path in sorted(folder.iterdir())]


def values(dataset):
    return dataset.pixel_array * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0))


def test_mr_becomes_ct_in_slice_order_with_the_same_geometry(run, series, tmp_path, make):
    source = series("MR", slices=6)
    result = run(source)
    made = outputs(tmp_path / "out")
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == [f"{i:04d}.dcm" for i in range(1, 7)]
    heights = [float(item.ImagePositionPatient[2]) for item in made]
    assert heights == sorted(heights) == [-40.5 + 5 * index for index in range(6)]
    by_uid = {item.SOPInstanceUID: item for item in outputs(source)}
    white = result.input_range[1]
    for item in made:
        origin = by_uid[item.SourceImageSequence[0].ReferencedSOPInstanceUID]
        assert item.ImagePositionPatient == origin.ImagePositionPatient
        expected = np.clip(origin.pixel_array / white, 0, 1) * 3024 - 1024
        np.testing.assert_allclose(values(item), expected, atol=0.6)
    assert len({item.SOPInstanceUID for item in made}) == 6
    assert len({item.SeriesInstanceUID for item in made}) == 1
    assert result.slices == 6
    assert result.bundle_sha256 in made[0].DerivationDescription
    assert "fp32 (layers " in made[0].DerivationDescription


def test_one_percentile_holds_for_the_whole_series(run, series, tmp_path, make):
    """The brightest slice comes first: neither one by one nor the last slice alone may set the scale."""
    source = series(change=lambda index: {"RescaleSlope": 5 - index, "RescaleIntercept": 0})
    result = run(source)
    expected = mr_white([values(item) for item in outputs(source)], make.MR)
    assert result.input_range == (0, pytest.approx(expected, rel=1e-6))
    peaks = [values(item).max() for item in outputs(tmp_path / "out")]
    assert all(earlier > later + 100 for earlier, later in pairwise(peaks))


def test_ct_becomes_mr_through_the_fixed_window(run, series, tmp_path, make):
    source = series("CT")
    run(source, make.ct2mr())
    first = outputs(tmp_path / "out")[0]
    origin = next(item for item in outputs(source) if item.ImagePositionPatient == first.ImagePositionPatient)
    expected = np.clip((values(origin) + 1024) / 3024, 0, 1) * 4095
    np.testing.assert_allclose(first.pixel_array, expected, atol=0.6)
    assert "-1024 to 2000 HU" in first.DerivationDescription


def test_the_grid_is_that_of_the_source_when_the_network_runs_at_another(run, series, tmp_path, make):
    source = series("CT", size=(80, 120), slices=2, change=lambda index: {"PixelSpacing": [0.9, 0.6]})
    result = run(source, make.ct2mr(trained_spacing_mm=(1.0, 1.0)))
    assert result.inner_size == (72, 72)
    assert result.run_size == (72, 72)
    made = outputs(tmp_path / "out")[0]
    assert (made.Rows, made.Columns, list(made.PixelSpacing)) == (80, 120, [0.9, 0.6])
    origin = next(item for item in outputs(source) if item.ImagePositionPatient == made.ImagePositionPatient)
    head, found = values(origin) > -900, made.pixel_array > 4095 * 0.1
    assert (head & found).sum() / (head | found).sum() > 0.93


@pytest.mark.parametrize(
    ("size", "spacing"),
    [((256, 256), (0.9, 0.9)), ((512, 512), (0.45, 0.45)), ((320, 260), (0.75, 0.75)), ((300, 200), (0.6, 1.1))],
)
def test_landmarks_overlay_within_a_tenth_of_a_pixel_from_file_to_file(run, tmp_path, make, size, spacing):
    source = tmp_path / "landmarks"
    source.mkdir()
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    places = [(share[0] * size[0] + 0.3, share[1] * size[1] - 0.2) for share in ((0.2, 0.25), (0.5, 0.5), (0.77, 0.68))]
    for index, (row, column) in enumerate(places):
        blob = np.exp(-(((y - row) * spacing[0]) ** 2 + ((x - column) * spacing[1]) ** 2) / 50)  # 5 mm wide
        stored = np.rint(blob * 2000).astype(np.uint16)
        make.save(make.dataset("CT", index, stored, PixelSpacing=list(spacing)), source / f"{index}.dcm")
    run(source, make.ct2mr(trained_size=(256, 256), engine_size=(256, 256)))
    for made, (row, column) in zip(outputs(tmp_path / "out"), places, strict=True):
        weight = np.clip(made.pixel_array - 60.0, 0, None)
        assert abs((y * weight).sum() / weight.sum() - row) < 0.1
        assert abs((x * weight).sum() / weight.sum() - column) < 0.1


def test_padding_of_the_source_is_background_in_the_output(run, tmp_path, make):
    source = tmp_path / "padded"
    source.mkdir()
    for index in range(2):
        stored = np.full((64, 64), 1000, np.int16)
        stored[:, :10] = -1500
        made = make.dataset("CT", index, stored, PixelPaddingValue=-1500, RescaleIntercept=0)
        make.save(made, source / f"{index}.dcm")
    run(source, make.ct2mr(), kind="negative")
    made = outputs(tmp_path / "out")[0]
    assert (made.pixel_array[:, :10] == 0).all()
    assert (made.pixel_array[:, 12:] > 1000).all()


def test_a_window_is_taken_from_the_user_the_series_or_not_at_all(run, series, tmp_path, make):
    contract = make.ct2mr(input_intensity=make.CT_DISPLAY)
    source = series("CT")
    own = run(source, contract, out="own")
    assert own.input_range == (0, 80)
    assert any("own window was used (40/80 HU)" in text for text in own.warnings)
    assert "window 40/80 HU" in outputs(tmp_path / "own")[0].DerivationDescription
    given = run(source, contract, out="given", window=(100.0, 400.0))
    assert given.input_range == (-100, 300)
    assert not any("own window" in text for text in given.warnings)
    silent = series("CT", folder="silent", change=lambda index: {"WindowCenter": None} if index == 2 else {})
    with pytest.raises(SeriesError, match="--window"):
        run(silent, contract, out="silent-out")
    with pytest.raises(SeriesError, match="fixes its input window"):
        run(source, make.ct2mr(), out="fixed", window=(40.0, 80.0))
    with pytest.raises(InputError, match="takes MR"):
        run(series("MR"), out="mr", window=(40.0, 80.0))


@pytest.mark.parametrize("window", [(40.0, float("nan")), (float("inf"), 80.0), (40.0, float("inf")), (40.0, 0.5)])
def test_a_window_that_cannot_be_is_refused_at_once(run, series, make, window):
    with pytest.raises(InputError, match="--window"):
        run(series("CT"), make.ct2mr(input_intensity=make.CT_DISPLAY), window=window)


def test_output_without_units_warns(run, series, tmp_path, make):
    result = run(series(), make.contract(output_intensity=make.CT_DISPLAY))
    assert any("no Hounsfield units" in text for text in result.warnings)
    made = outputs(tmp_path / "out")[0]
    assert made.RescaleType == "US"
    assert "NOT HU" in made.DerivationDescription


def test_findings_are_reported_and_written(run, series, tmp_path, make):
    tilt = {"ImageOrientationPatient": [1, 0, 0, 0, 0.9483237, -0.3173047]}
    result = run(series(change=lambda index: tilt))
    assert [finding.code for finding in result.findings] == ["gantry_tilt"]
    assert "Gantry tilt of 18.5 degrees" in outputs(tmp_path / "out")[0].DerivationDescription


def test_gaps_are_refused_unless_allowed(run, series, tmp_path):
    source = series(slices=8)
    (source / "IM004.dcm").unlink()
    with pytest.raises(SeriesError, match="1 slices are missing"):
        run(source)
    assert not (tmp_path / "out").exists()
    assert run(source, allow_gaps=True).slices == 7
    assert "missing" in outputs(tmp_path / "out")[0].DerivationDescription


@pytest.mark.parametrize("multi_frame", [False, True])
def test_one_echo_of_a_dual_echo_series_is_converted(run, tmp_path, make, multi_frame):
    source = tmp_path / "dual"
    source.mkdir()
    stack = np.stack([np.rint(make.head(seed=index) * 1000).astype(np.uint16) for index in range(8)])

    def change(index):
        echo, slice_ = divmod(index, 4)
        return {"ImagePositionPatient": [-100, -110, 5 * slice_], "EchoTime": (90, 12)[echo]}

    if multi_frame:
        make.save(make.enhanced("MR", stack, change), source / "multi.dcm")
    else:
        for index, stored in enumerate(stack):
            make.save(make.dataset("MR", index, stored, **change(index)), source / f"{index}.dcm")
    with pytest.raises(SeriesError, match=r"1: 12 ms, 2: 90 ms.*--echo"):
        run(source)
    result = run(source, echo=2)
    assert result.slices == 4
    assert [finding.code for finding in result.findings] == ["echo"]
    made = outputs(tmp_path / "out")
    assert "Echo 2 of 2 was converted (echo time 90 ms)" in made[0].DerivationDescription
    for image, stored in zip(made, stack[:4], strict=True):
        expected = np.clip(stored / result.input_range[1], 0, 1) * 3024 - 1024
        np.testing.assert_allclose(values(image), expected, atol=0.6)
    with pytest.raises(InputError, match="for MR"):
        run(source, make.ct2mr(), out="other", echo=1)


def test_input_unlike_the_training_inputs_warns_and_strict_refuses(run, series, tmp_path, make):
    from dataclasses import replace

    sharp = replace(make.STATISTICS, sharpness=Range(p5=5.0, median=6.0, p95=7.0))
    contract = make.contract(input_statistics=sharp)
    result = run(series(), contract)
    assert any("sharpness" in text for text in result.warnings)
    with pytest.raises(RefusedError, match="sharpness"):
        run(series(), contract, out="strict", strict=True)
    assert not (tmp_path / "strict").exists()
    unknown = make.contract(input_statistics=None, unknown={"input_statistics": "an old checkpoint"})
    assert any("not checked" in text for text in run(series(), unknown, out="unknown").warnings)
    with pytest.raises(RefusedError, match="not checked"):
        run(series(), unknown, out="unknown-strict", strict=True)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"ImageOrientationPatient": [-1, 0, 0, 0, -1, 0]}, "rows run 180 and columns 180 degrees"),
        ({"ImageOrientationPatient": [-1, 0, 0, 0, 1, 0]}, "rows run 180 and columns 0 degrees"),
        ({"ImageOrientationPatient": [0, 1, 0, -1, 0, 0]}, "rows run 90 and columns 90 degrees"),
        ({"PixelData": bytes(64 * 64 * 2)}, r"1 of 5 slices are empty \(first: IM003\.dcm\)"),
    ],
)
def test_turned_mirrored_and_black_slices_warn_and_strict_refuses(run, series, change, word):
    keyword = next(iter(change))
    source = series(change=lambda index: change if keyword != "PixelData" or index == 2 else {})
    assert re.search(word, " ".join(run(source).warnings))
    with pytest.raises(RefusedError, match=word):
        run(source, out="strict", strict=True)


def test_padding_to_the_network_s_size_does_not_hide_noise_in_the_air(run, tmp_path, make):
    """The same air in a smaller field of view, of which most of what the network sees is padding."""
    from dataclasses import replace

    black = replace(make.STATISTICS, background=Range(p5=0.0, median=0.1, p95=0.2))
    contract = make.contract(input_statistics=black, trained_spacing_mm=(1.5, 1.5), trained_size=(128, 128))
    found = {}
    for size in (128, 64):
        (tmp_path / str(size)).mkdir()
        for index in range(3):
            stored = np.rint(np.maximum(make.head(size, size, index), 0.01) * 1000).astype(np.uint16)
            make.save(make.dataset("MR", index, stored), tmp_path / str(size) / f"{index}.dcm")
        told = run(tmp_path / str(size), contract, out=f"out{size}").warnings
        found[size] = [re.search(r"background is ([\d.]+)", text)[1] for text in told if "background" in text]
    assert len(found[128]) == 1
    assert float(found[64][0]) == pytest.approx(float(found[128][0]), abs=0.2)


def test_what_lies_in_the_output_is_not_printed_either(run, series, tmp_path, make):
    (tmp_path / "out").mkdir()
    with warnings.catch_warnings(action="ignore"):
        image = make.dataset("CT", 0, np.zeros((8, 8), np.uint16), SeriesInstanceUID="1.2.03" + "4" * 70)
    make.save(image, tmp_path / "out" / "0001.dcm")
    source = series()
    refused = pytest.raises(InputError, match="something else than synthetic images")
    with warnings.catch_warnings(record=True, action="always") as told, refused:
        run(source, force=True)
    assert not told


def test_an_image_without_number_is_counted(run, series, tmp_path):
    run(series(change=lambda index: {"InstanceNumber": None}))
    assert [item.InstanceNumber for item in outputs(tmp_path / "out")] == [1, 2, 3, 4, 5]


def test_simulated_training_data_warns(run, series, tmp_path, make):
    result = run(series(), make.contract(simulated_data=True))
    assert any("simulated" in text for text in result.warnings)
    assert "not for clinical use" in outputs(tmp_path / "out")[0].DerivationDescription


def test_an_existing_folder_is_replaced_only_with_force_and_only_on_success(run, series, tmp_path):
    source = series()
    run(source)
    first = {item.SOPInstanceUID for item in outputs(tmp_path / "out")}
    with pytest.raises(InputError, match="--force"):
        run(source)
    with pytest.raises(RefusedError):
        run(source, kind="nan", force=True)
    assert {item.SOPInstanceUID for item in outputs(tmp_path / "out")} == first
    run(source, force=True)
    second = {item.SOPInstanceUID for item in outputs(tmp_path / "out")}
    assert len(second) == 5
    assert not first & second


def test_compressed_and_zipped_series_give_the_same_pixels(run, series, tmp_path, make):
    from pydicom.uid import JPEG2000Lossless, RLELossless

    plain = series()
    run(plain, out="plain")
    for syntax in (RLELossless, JPEG2000Lossless):
        folder = tmp_path / syntax.keyword
        folder.mkdir()
        for path in plain.iterdir():
            made = dcmread(path)
            made.compress(syntax, generate_instance_uid=False)
            make.save(made, folder / path.name)
        archive = shutil.make_archive(str(tmp_path / f"zip-{syntax.keyword}"), "zip", folder)
        run(type(plain)(archive), out=f"out-{syntax.keyword}")
        for one, other in zip(outputs(tmp_path / "plain"), outputs(tmp_path / f"out-{syntax.keyword}"), strict=True):
            np.testing.assert_array_equal(one.pixel_array, other.pixel_array)


def test_the_cache_changes_nothing_but_memory(run, series, tmp_path, monkeypatch):
    source = series()
    run(source, out="cached")
    monkeypatch.setattr(convert_module, "CACHE_BYTES", 2 * (64 * 64 * 2 + convert_module.ATTRIBUTES_BYTES))
    run(source, out="decoded-again")
    for one, other in zip(outputs(tmp_path / "cached"), outputs(tmp_path / "decoded-again"), strict=True):
        np.testing.assert_array_equal(one.pixel_array, other.pixel_array)


def test_only_a_few_slices_are_in_memory_at_a_time(run, series, make, monkeypatch):
    alive, most, lock = 0, 0, threading.Lock()
    read, write = convert_module.read_plane, convert_module.write_file

    def reading(*arguments):
        nonlocal alive, most
        with lock:
            alive += 1
            most = max(most, alive)
        return read(*arguments)

    def writing(*arguments):
        nonlocal alive
        time.sleep(0.005)  # a slow disk
        write(*arguments)
        with lock:
            alive -= 1

    monkeypatch.setattr(convert_module, "read_plane", reading)
    monkeypatch.setattr(convert_module, "write_file", writing)
    assert run(series("CT", slices=40), make.ct2mr()).slices == 40
    assert alive == 0
    assert most <= 2 * pipeline.AHEAD + 4


def test_progress_counts_every_slice(run, series):
    seen = []
    run(series(), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(index, 5) for index in range(1, 6)]


def test_logs_warnings_errors_and_results_hold_nothing_of_the_patient(run, series, tmp_path, make, caplog, capfd):
    secrets = {
        "PatientComments": "SECRET-1 " * 40,
        "AccessionNumber": "SECRET-2-" * 5,
        "StudyID": "SECRET-3" * 9,
        "StudyInstanceUID": "1.2.SECRET",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # these values are too long, and pydicom says so while the test writes them
        source = series(change=lambda index: secrets)
    dataset = outputs(source)[0]
    texts = []
    caplog.clear()  # of what pydicom said to the test itself
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = run(source)
        texts += [repr(result), json.dumps(result.to_dict(), default=str)]
        (source / "IM003.dcm").write_bytes((source / "IM003.dcm").read_bytes()[:-5])
        with pytest.raises(SeriesError) as error:
            run(source, out="again")
    texts += [str(error.value), caplog.text, *capfd.readouterr()]
    assert [str(item.message) for item in caught] == []
    for text in texts:
        for secret in ("SECRET", "Muster", "Änne", make.PATIENT_ID, dataset.SOPInstanceUID):
            assert secret not in text


def test_a_series_of_one_slice_is_converted(run, series):
    assert [finding.code for finding in run(series(slices=1)).findings] == ["single_slice"]


def test_a_series_without_frame_of_reference_gets_one(run, series, tmp_path):
    run(series(change=lambda index: {"FrameOfReferenceUID": None}))
    uids = {item.FrameOfReferenceUID for item in outputs(tmp_path / "out")}
    assert len(uids) == 1
    assert uids != {""}


def checked(tool, paths):
    result = subprocess.run([*tool, *paths], capture_output=True, text=True, errors="replace", check=False)
    return {line for line in (result.stdout + result.stderr).splitlines() if line.startswith("Error")}


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian package dicom3tools) is not installed")
@pytest.mark.parametrize(("name", "direction"), [("mr_t2_head", "mr2ct"), ("ct_head_tilted", "ct2mr")])
def test_real_series_convert_without_new_errors(run, shared_series, tmp_path, make, name, direction):
    source = shared_series(name)
    result = run(source, make.contract() if direction == "mr2ct" else make.ct2mr())
    assert result.slices == len(list(source.iterdir()))
    made = sorted((tmp_path / "out").iterdir())
    assert len(made) == result.slices
    before = set().union(*(checked(["dciodvfy", "-new"], [path]) for path in source.iterdir()))
    after = set().union(*(checked(["dciodvfy", "-new"], [path]) for path in made))
    assert {line for line in after - before if NOT_YET_KNOWN not in line} == set()
    assert checked(["dcentvfy"], made) == set()
    if name == "ct_head_tilted":
        assert {finding.code for finding in result.findings} == {"gantry_tilt", "irregular_spacing", "mixed_settings"}
        assert "18.5 degrees" in dcmread(made[0]).DerivationDescription


@pytest.mark.skipif(shutil.which("dcentvfy") is None, reason="dcentvfy (Debian package dicom3tools) is not installed")
def test_source_and_output_agree_about_patient_and_study(run, series, tmp_path):
    source = series()
    run(source)
    paths = [*source.iterdir(), *(tmp_path / "out").iterdir()]
    result = subprocess.run(["dcentvfy", *paths], capture_output=True, text=True, errors="replace", check=False)
    assert "Error" not in result.stdout + result.stderr
    assert "Warning" not in result.stdout + result.stderr

"""Lesion masks lie beside the slices of a case and must fit them."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sccg_runtime.errors import InputError
from sccg_teacher_student.data.source import open_data


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One PNG case of two slices, 16x24."""
    for modality in ("mr", "ct"):
        folder = tmp_path / "case" / modality
        folder.mkdir(parents=True)
        for name in ("001", "002"):
            Image.fromarray(np.zeros((16, 24), np.uint8)).save(folder / f"{name}.png")
    return tmp_path


def draw(data: Path, values: np.ndarray, name: str = "002.png") -> None:
    folder = data / "case" / "Lesion"
    folder.mkdir(exist_ok=True)
    Image.fromarray(values).save(folder / name)


def test_without_masks_there_is_none(data: Path) -> None:
    assert [pair.lesion for pair in open_data(data).pairs()] == [None, None]


@pytest.mark.parametrize("value", [1, 255])
def test_all_that_is_not_black_is_inside(data: Path, value: int) -> None:
    values = np.zeros((16, 24), np.uint8)
    values[3:5, 7] = value
    draw(data, values)
    first, second = open_data(data).pairs()
    assert first.lesion is None, "nobody drew one in this slice"
    assert second.lesion is not None
    np.testing.assert_array_equal(second.lesion, values > 0)
    twice, half = (replace(open_data(data), size=size) for size in ((32, 48), (8, 12)))
    enlarged, shrunk = (next(pair.lesion for pair in one.pairs() if pair.lesion is not None) for one in (twice, half))
    np.testing.assert_array_equal(enlarged, np.kron(values > 0, np.ones((2, 2), bool)))
    assert np.argwhere(shrunk).tolist() == [[1, 3], [2, 3]], "rows 3 and 4, column 7: whatever it touches"


def test_a_mask_that_does_not_fit_is_refused(data: Path) -> None:
    draw(data, np.zeros((24, 16), np.uint8))
    with pytest.raises(InputError, match=r"002\.png: is 24x16, its slice 16x24"):
        list(open_data(data).pairs())


def test_a_mask_that_is_no_grey_png_is_refused(data: Path) -> None:
    draw(data, np.zeros((16, 24, 4), np.uint8))
    with pytest.raises(InputError, match="save it as 8- or 16-bit grey"):
        list(open_data(data).pairs())


def test_masks_that_belong_to_no_slice_are_told(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = np.full((16, 24), 255, np.uint8)
    draw(data, values)
    source = open_data(data)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        source.slices("case")
        assert not caplog.messages
        draw(data, values, "2.png")
        draw(data, values, "001.PNG")
        assert source.slices("case") == ("001", "002")
    assert caplog.messages == ["case: no slice has the name of lesion/001.PNG, 2.png"]

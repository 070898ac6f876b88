"""PNG slices: exact values, and refusal of everything that is not plain grey."""

from __future__ import annotations

import io
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from sccg_runtime.errors import InputError
from sccg_teacher_student.data.png import read_png

WritePng = Callable[..., Path]
shapes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)


@settings(deadline=None, max_examples=40)
@given(values=st.one_of(hnp.arrays(np.uint8, shapes), hnp.arrays(np.uint16, shapes)))
def test_every_value_comes_back(values: np.ndarray) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.png"
        Image.fromarray(values).save(path)
        read = read_png(path)
    full = np.iinfo(values.dtype).max
    assert read.dtype == np.float32
    assert read.shape == (1, *values.shape)
    np.testing.assert_array_equal(np.rint((read[0].astype(np.float64) + 1) / 2 * full), values)


def test_ends_and_middle_are_exact(tmp_path: Path, write_png: WritePng) -> None:
    eight = read_png(write_png(tmp_path / "8.png", np.array([[0, 51, 255]], np.uint8)))
    sixteen = read_png(write_png(tmp_path / "16.png", np.array([[0, 13107, 65535]], np.uint16)))
    np.testing.assert_array_equal(eight, sixteen)
    np.testing.assert_allclose(eight[0, 0], [-1, -0.6, 1], atol=1e-7)


def test_rows_run_down_and_columns_right(tmp_path: Path, write_png: WritePng) -> None:
    values = np.zeros((4, 6), np.uint8)
    values[0, 5] = 255
    assert np.argwhere(read_png(write_png(tmp_path / "a.png", values)) > 0).tolist() == [[0, 0, 5]]


def test_grey_saved_as_rgb_is_read(tmp_path: Path, write_png: WritePng) -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    rgb = read_png(write_png(tmp_path / "rgb.png", np.repeat(grey[..., None], 3, axis=2)))
    np.testing.assert_array_equal(rgb, read_png(write_png(tmp_path / "grey.png", grey)))


def with_colour() -> bytes:
    values = np.zeros((3, 4, 3), np.uint8)
    values[1, 1] = (10, 10, 11)
    return encode(Image.fromarray(values))


def encode(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def rgb_16_bit() -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" + b"\1\2" * 3)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


GREY = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (with_colour(), "colour picture"),
        (encode(Image.new("RGBA", (4, 4))), "RGB with alpha"),
        (encode(Image.new("LA", (4, 4))), "grey with alpha"),
        (encode(Image.new("P", (4, 4))), "palette"),
        (encode(Image.new("1", (4, 4))), "1-bit grey"),
        (encode(GREY, transparency=3), "alpha"),
        (rgb_16_bit(), "16-bit RGB"),
        (encode(GREY)[:-40], "damaged PNG"),
        (b"GIF89a" + bytes(40), "not a PNG file"),
        (b"", "not a PNG file"),
    ],
)
def test_refuses_what_is_not_plain_grey(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "slice.png"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        read_png(path)
    assert "slice.png" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.png: cannot be read"):
        read_png(tmp_path / "gone.png")

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from sccg_runtime.dicom import header as header_module
from sccg_runtime.dicom.header import read_header
from sccg_runtime.dicom.pixels import StoredHistogram, read_plane
from sccg_runtime.dicom.source import entries
from sccg_runtime.errors import SeriesError
from sccg_runtime.intensity import mr_white, mr_white_from_counts

RAMP = np.arange(64, dtype=np.uint16).reshape(8, 8)


@pytest.fixture
def plane(make, tmp_path):
    def read(modality, stored, syntax=None, **changes):
        made = make.dataset(modality, 0, stored, **changes)
        if syntax is not None:
            made.compress(syntax, generate_instance_uid=False)
        path = make.save(made, tmp_path / "image.dcm")
        return read_plane(read_header(entries(path)[0]), modality)

    return read


def test_ct_values_are_hounsfield_units(plane):
    values = plane("CT", RAMP, RescaleSlope=2, RescaleIntercept=-1000).values()
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, RAMP * 2.0 - 1000)


@pytest.mark.parametrize(("dtype", "shift"), [(np.uint8, 0), (np.int8, 100)])
def test_eight_bits_are_read_signed_and_unsigned(plane, dtype, shift):
    stored = (np.arange(63).reshape(7, 9) * 2 - shift).astype(dtype)  # an odd number of bytes
    bits = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelData": stored.tobytes() + b"\0"}
    np.testing.assert_array_equal(plane("CT", stored, RescaleIntercept=0, **bits).values(), stored)


def test_signed_pixels_keep_their_sign(plane):
    stored = RAMP.astype(np.int16) - 30
    np.testing.assert_array_equal(plane("CT", stored, RescaleIntercept=0).values(), stored)


def test_unused_bits_are_removed_and_the_sign_is_extended(plane):
    overlay = RAMP | np.uint16(0xF000)
    changes = {"BitsStored": 12, "HighBit": 11}
    np.testing.assert_array_equal(plane("MR", overlay, **changes).values(), RAMP)
    negative = np.full((8, 8), 0x0FFF, np.uint16).view(np.int16)  # -1 in 12 bits, without sign extension
    np.testing.assert_array_equal(plane("CT", negative, RescaleIntercept=0, **changes).values(), -1)


@pytest.mark.parametrize(("modality", "background"), [("CT", -1024), ("MR", 0)])
def test_padding_becomes_background(plane, modality, background):
    stored = RAMP.astype(np.int16)
    stored[0, :4] = -1500
    rescale = {"RescaleIntercept": 0} if modality == "CT" else {}
    read = plane(modality, stored, PixelPaddingValue=-1500, **rescale)
    assert (read.values()[0, :4] == background).all()
    np.testing.assert_array_equal(read.values()[1:], RAMP[1:])
    assert read.padding.sum() == 4


@pytest.mark.parametrize(("padding", "outside"), [(0, 0), (-1500, 4)])
def test_no_signal_inside_the_head_is_not_outside_of_the_picture(plane, padding, outside):
    stored = RAMP.astype(np.int16)
    stored[0, :4] = padding
    read = plane("MR", stored, PixelPaddingValue=padding)
    assert (read.values()[0, :4] == 0).all()
    assert read.outside.sum() == outside
    air = plane("CT", stored, PixelPaddingValue=padding, RescaleIntercept=0)
    np.testing.assert_array_equal(air.outside, air.padding)


def test_a_padding_range_and_an_unsigned_spelling_of_it_are_understood(plane):
    stored = RAMP.astype(np.int16)
    stored[0, :4] = (-2000, -1999, -1998, -1990)
    read = plane("CT", stored, RescaleIntercept=0, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1998)
    np.testing.assert_array_equal(read.padding[0, :5], [True, True, True, False, False])


@pytest.mark.parametrize("pattern", [0xF830, 0x0830])  # -2000 with and without sign extension
def test_padding_is_found_however_its_unused_bits_are_filled(plane, pattern):
    stored = RAMP.copy()
    stored[0, :4] = pattern
    changes = {"BitsStored": 12, "HighBit": 11, "PixelPaddingValue": -2000, "RescaleIntercept": 0}
    read = plane("CT", stored.view(np.int16), **changes)
    assert (read.values()[0, :4] == -1024).all()
    np.testing.assert_array_equal(read.values()[1:], RAMP[1:])


def test_padding_that_does_not_fit_into_the_stored_bits_hides_no_other_value(plane):
    stored = RAMP.copy()
    stored[0, :3] = (63536, 63536 & 0xFFF, 5)
    read = plane("MR", stored, BitsStored=12, HighBit=11, PixelPaddingValue=63536)
    np.testing.assert_array_equal(read.padding[0, :3], [True, False, False])
    np.testing.assert_array_equal(read.values()[0, :3], [0, 63536 & 0xFFF, 5])


def test_monochrome1_of_mr_is_turned_over_and_of_ct_is_not(plane):
    inverted = {"PhotometricInterpretation": "MONOCHROME1"}
    bits = {"BitsStored": 12, "HighBit": 11}
    np.testing.assert_array_equal(plane("MR", RAMP, **inverted, **bits).values(), 4095.0 - RAMP)
    np.testing.assert_array_equal(plane("MR", RAMP.astype(np.int16), **inverted).values(), -1.0 - RAMP)
    np.testing.assert_array_equal(plane("CT", RAMP, **inverted).values(), RAMP - 1024.0)


@pytest.mark.parametrize("syntax", ["RLELossless", "JPEG2000Lossless", "JPEGLSLossless"])
@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_compressed_images_give_the_same_values(plane, syntax, dtype):
    from pydicom import uid

    stored = np.random.default_rng(0).integers(0, 2000, (96, 64)).astype(dtype)
    if dtype == np.int16:
        stored -= 1000
    read = plane("CT", stored, getattr(uid, syntax))
    np.testing.assert_array_equal(read.values(), stored.astype(np.float32) - 1024)


@pytest.mark.parametrize("syntax", ["ImplicitVRLittleEndian", "ExplicitVRBigEndian", "DeflatedExplicitVRLittleEndian"])
def test_uncompressed_syntaxes_give_the_same_values(make, tmp_path, syntax):
    from pydicom import uid

    made = make.dataset("CT", 0, RAMP.astype(">u2") if syntax == "ExplicitVRBigEndian" else RAMP)
    made.file_meta.TransferSyntaxUID = getattr(uid, syntax)
    path = make.save(made, tmp_path / "image.dcm")
    np.testing.assert_array_equal(read_plane(read_header(entries(path)[0]), "CT").values(), RAMP - 1024.0)


def test_padding_is_found_in_big_endian_files(make, tmp_path):
    from pydicom import uid

    stored = np.full((16, 16), 128, np.int16)  # 128 is -32768 with its bytes in the other order
    stored[:4] = -32768
    made = make.dataset("MR", 0, stored.astype(">i2"))
    made.add_new("PixelPaddingValue", "SS", -32768)
    made.file_meta.TransferSyntaxUID = uid.ExplicitVRBigEndian
    path = make.save(made, tmp_path / "image.dcm")
    np.testing.assert_array_equal(read_plane(read_header(entries(path)[0]), "MR").padding, stored == -32768)


def test_a_deflated_file_that_inflates_without_end_is_refused_before_it_fills_the_memory(make, tmp_path, monkeypatch):
    from pydicom import uid

    made = make.dataset("CT", 0, np.zeros((512, 512), np.uint16))
    made.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    (entry,) = entries(make.save(made, tmp_path / "image.dcm"))
    assert read_header(entry).size == (512, 512)
    monkeypatch.setattr(header_module, "MAX_INFLATED_BYTES", 2 * 512 * 512)
    with pytest.raises(SeriesError, match=r"image\.dcm inflates to more than 0 MiB"):
        read_header(entry)
    without_length = bytearray((tmp_path / "image.dcm").read_bytes())
    del without_length[132:144]
    (tmp_path / "image.dcm").write_bytes(without_length)
    with pytest.raises(SeriesError, match="damaged header"):
        read_header(entry)


@pytest.mark.parametrize(
    ("modality", "changes", "reason"),
    [
        ("CT", {"RescaleSlope": None}, "no unit"),
        ("CT", {"RescaleIntercept": None}, "no unit"),
        ("MR", {"RescaleSlope": 2}, "no unit"),
        ("CT", {"RescaleSlope": 0}, "RescaleSlope 0"),
        ("CT", {"RescaleIntercept": "1e39"}, "RescaleIntercept 1e\\+39"),
        ("MR", {"RescaleSlope": "1e36", "RescaleIntercept": 0}, "RescaleSlope 1e\\+36"),
        ("CT", {"RescaleType": "US"}, "not in HU"),
        ("CT", {"BitsStored": 17}, "BitsStored 17"),
        ("CT", {"HighBit": 12}, "HighBit 12"),
        ("CT", {"BitsAllocated": 32}, "32 bits"),
        ("CT", {"PhotometricInterpretation": "RGB"}, "greyscale"),
        ("CT", {"PixelRepresentation": None}, "signed"),
        ("CT", {"PixelData": bytes(100)}, "cut off or damaged"),
    ],
)
def test_pixels_without_a_clear_meaning_are_refused(plane, modality, changes, reason):
    with pytest.raises(SeriesError, match=f"image.dcm.*{reason}"):
        plane(modality, RAMP, **changes)


@pytest.mark.parametrize("tag", [b"\x28\x00\x00\x01", b"\x28\x00\x03\x01", b"\x28\x00\x53\x10"])
def test_an_attribute_with_a_value_representation_that_there_is_not_is_refused(make, tmp_path, tag):
    """BitsAllocated, PixelRepresentation, RescaleSlope: pydicom finds out when the value is asked for."""
    path = make.save(make.dataset("CT", 0, RAMP), tmp_path / "image.dcm")
    data = bytearray(path.read_bytes())
    place = data.index(tag) + len(tag)
    data[place : place + 2] = b"\x55\xfc"
    path.write_bytes(data)
    with pytest.raises(SeriesError, match=r"damaged pixel attributes \(NotImplementedError\)"):
        read_plane(read_header(entries(path)[0]), "CT")


def test_a_number_of_three_bytes_is_refused(make, tmp_path):
    path = make.save(make.dataset("CT", 0, RAMP), tmp_path / "image.dcm")
    data, high_bit = path.read_bytes(), b"\x28\x00\x02\x01US"
    head, tail = data.split(high_bit)
    path.write_bytes(head + high_bit + b"\x03\x00" + tail[2:4] + b" " + tail[4:])
    with pytest.raises(SeriesError, match=r"damaged pixel attributes \(BytesLengthException\)"):
        read_plane(read_header(entries(path)[0]), "CT")


def test_a_file_without_pixels_is_refused(make, tmp_path):
    made = make.dataset("CT", 0, RAMP)
    del made.PixelData
    path = make.save(made, tmp_path / "image.dcm")
    with pytest.raises(SeriesError, match="ends before its pixels"):
        read_header(entries(path)[0])


def test_floating_point_pixels_are_refused(make, tmp_path):
    made = make.dataset("CT", 0, RAMP)
    del made.PixelData
    made.FloatPixelData = bytes(256)
    path = make.save(made, tmp_path / "image.dcm")
    with pytest.raises(SeriesError, match="floating-point"):
        read_plane(read_header(entries(path)[0]), "CT")


@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_a_compressed_image_that_is_cut_off_is_refused(make, tmp_path, part):
    from pydicom.uid import JPEG2000Lossless

    made = make.dataset("CT", 0, np.random.default_rng(0).integers(0, 2000, (64, 64)).astype(np.uint16))
    made.compress(JPEG2000Lossless, generate_instance_uid=False)
    frame = bytes(made.PixelData)
    path = make.save(made, tmp_path / "image.dcm")
    header = read_header(entries(path)[0])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - int(len(frame) * (1 - part))])
    with pytest.raises(SeriesError, match=r"image\.dcm"):
        read_plane(header, "CT")


def test_a_series_of_many_scales_needs_no_more_memory_than_values_that_occur(plane):
    histogram, read = StoredHistogram(), plane("MR", RAMP.astype(np.int16), RescaleSlope=1, RescaleIntercept=0)
    tracemalloc.start()
    for number in range(100):
        histogram.add(replace(read, slope=1 + number / 100))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 2**20
    assert histogram.values_and_counts()[1].sum() == 100 * RAMP.size


def test_the_histogram_of_a_series_is_that_of_its_pixels(plane, make):
    histogram, values = StoredHistogram(), []
    for seed, slope in ((0, 1), (1, 1), (2, 1.7), (3, 0.4)):
        stored = np.rint(make.head(40, 40, seed) * (300 + 100 * seed)).astype(np.int16) - 3
        stored[:2] = 30000
        read = plane("MR", stored, RescaleSlope=slope, RescaleIntercept=2, PixelPaddingValue=30000)
        histogram.add(read)
        values.append(read.values()[~read.padding])
    found, counts = histogram.values_and_counts()
    expected, expected_counts = np.unique(np.concatenate(values).astype(np.float64), return_counts=True)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(counts, expected_counts)
    assert mr_white_from_counts(found, counts, make.MR) == mr_white(values, make.MR)

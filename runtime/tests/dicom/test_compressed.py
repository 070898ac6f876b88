"""Every transfer syntax that pydicom decodes with the packages that sccg-runtime brings."""

import io
import subprocess
import sys
from pathlib import Path

import gdcm
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread, uid
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder

from sccg_runtime.bundle import read_bundle
from sccg_runtime.convert import convert_series
from sccg_runtime.dicom.header import read_header
from sccg_runtime.dicom.pixels import read_plane
from sccg_runtime.dicom.source import entries
from sccg_runtime.errors import SeriesError

HERE = Path(__file__).parent
TWELVE = {"BitsStored": 12, "HighBit": 11}


def picture(highest=4000):
    """64 rows, 96 columns: a disc with a slope in it."""
    y, x = np.mgrid[0:64, 0:96]
    inside = ((y - 32) / 26) ** 2 + ((x - 48) / 36) ** 2 < 1
    return np.where(inside, highest // 2 + x * highest // 192, 0).astype(np.uint16)


def htj2k_picture():
    """What ``make_htj2k.py`` compressed; run as a program, since this folder is no package."""
    code = "import runpy, sys; sys.stdout.buffer.write(runpy.run_path(sys.argv[1])['picture']().tobytes())"
    made = subprocess.run([sys.executable, "-c", code, HERE / "make_htj2k.py"], check=True, capture_output=True)
    return np.frombuffer(made.stdout, np.uint16).reshape(24, 32)


def encapsulated(made, syntax, frame):
    made.PixelData = encapsulate([frame])
    made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
    made.file_meta.TransferSyntaxUID = syntax
    return made


def by_pydicom(make, path, syntax, **options):
    made = make.dataset("CT", 0, picture(), **TWELVE)
    made.compress(syntax, generate_instance_uid=False, **options)
    make.save(made, path)
    return picture()


def by_pillow(make, path, syntax):
    stored = picture(250).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(stored).save(stream, "JPEG", quality=95)
    made = make.dataset("CT", 0, stored, BitsAllocated=8, BitsStored=8, HighBit=7)
    make.save(encapsulated(made, syntax, stream.getvalue()), path)
    return stored


def by_gdcm(make, path, syntax):
    name = {
        uid.JPEGLossless: "JPEGLosslessProcess14",
        uid.JPEGLosslessSV1: "JPEGLosslessProcess14_1",
        uid.JPEGExtended12Bit: "JPEGExtendedProcess2_4",
    }[syntax]
    make.save(make.dataset("CT", 0, picture(), **TWELVE), path)
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, name)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return picture()


def by_openjph(make, path, syntax):
    name = {uid.HTJ2KLossless: "lossless", uid.HTJ2KLosslessRPCL: "lossless-rpcl", uid.HTJ2K: "lossy"}[syntax]
    stored = htj2k_picture()
    made = make.dataset("CT", 0, stored, **TWELVE)
    make.save(encapsulated(made, syntax, (HERE / f"htj2k-{name}.j2c").read_bytes()), path)
    return stored


# How the file is made, and how far a value may lie from the picture's (0: lossless).
SYNTAXES = {
    uid.RLELossless: (by_pydicom, {}, 0),
    uid.JPEGBaseline8Bit: (by_pillow, {}, 12),
    uid.JPEGExtended12Bit: (by_pillow, {}, 12),
    uid.JPEGLossless: (by_gdcm, {}, 0),
    uid.JPEGLosslessSV1: (by_gdcm, {}, 0),
    uid.JPEGLSLossless: (by_pydicom, {}, 0),
    uid.JPEGLSNearLossless: (by_pydicom, {"jls_error": 3}, 3),
    uid.JPEG2000Lossless: (by_pydicom, {}, 0),
    uid.JPEG2000: (by_pydicom, {"j2k_cr": [3]}, 100),
    uid.HTJ2KLossless: (by_openjph, {}, 0),
    uid.HTJ2KLosslessRPCL: (by_openjph, {}, 0),
    uid.HTJ2K: (by_openjph, {}, 60),
}


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
def test_it_is_decoded_and_losses_are_noticed(make, tmp_path, syntax):
    encode, options, most = SYNTAXES[syntax]
    path = tmp_path / "image.dcm"
    stored = encode(make, path, syntax, **options)
    assert dcmread(path).file_meta.TransferSyntaxUID == syntax
    header = read_header(entries(path)[0])
    values = read_plane(header, "CT").values()
    difference = np.abs(values - (stored.astype(np.float32) - 1024)).max()
    assert difference <= most
    assert header.lossy == (most > 0)
    assert (difference > 0) == (most > 0)


def test_jpeg_2000_that_denies_losses_is_believed(make, tmp_path):
    made = make.dataset("CT", 0, picture(), **TWELVE, LossyImageCompression="00")
    made.compress(uid.JPEG2000Lossless, generate_instance_uid=False)
    made.file_meta.TransferSyntaxUID = uid.JPEG2000
    make.save(made, tmp_path / "image.dcm")
    assert not read_header(entries(tmp_path / "image.dcm")[0]).lossy


@pytest.mark.parametrize(
    ("syntax", "method"),
    [(uid.JPEGBaseline8Bit, "ISO_10918_1"), (uid.JPEGLSNearLossless, "ISO_14495_1"), (uid.HTJ2K, "ISO_15444_15")],
)
def test_losses_are_marked_in_the_output(make, bundle_file, tmp_path, syntax, method):
    encode, options, _ = SYNTAXES[syntax]
    encode(make, tmp_path / "image.dcm", syntax, **options)
    convert_series(tmp_path / "image.dcm", tmp_path / "out", read_bundle(bundle_file(make.ct2mr())))
    made = dcmread(tmp_path / "out" / "0001.dcm")
    assert made.LossyImageCompression == "01"
    assert made.LossyImageCompressionMethod == method
    assert made.file_meta.TransferSyntaxUID == uid.ExplicitVRLittleEndian
    assert "compressed with losses" in made.DerivationDescription


def test_no_syntax_that_is_decoded_goes_untested():
    native = {uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian}
    known = [value for value in uid.AllTransferSyntaxes if value not in native | {uid.DeflatedExplicitVRLittleEndian}]
    decoded = set()
    for syntax in known:
        try:
            decoder = get_decoder(syntax)
        except NotImplementedError:
            continue
        if decoder.is_available:
            decoded.add(syntax)
    assert decoded == set(SYNTAXES)


def test_twelve_bits_of_jpeg_extended_are_refused_with_advice(make, tmp_path):
    path = tmp_path / "image.dcm"
    by_gdcm(make, path, uid.JPEGExtended12Bit)
    with pytest.raises(SeriesError, match=r"no decoder for JPEG Extended.*convert it to Explicit VR Little Endian"):
        read_plane(read_header(entries(path)[0]), "CT")

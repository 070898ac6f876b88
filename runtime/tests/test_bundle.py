import io
import random
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sccg_runtime.bundle import MAX_BYTES, read_bundle, read_golden
from sccg_runtime.errors import BundleError, NotTrustedError, SccgError
from sccg_runtime.files import sha256


@pytest.fixture
def contents(tmp_path, make):
    contract = make.contract()
    return contract, make.members_for(tmp_path, contract)


def test_a_good_bundle_is_read(bundle_file, make):
    path = bundle_file()
    bundle = read_bundle(path)
    assert bundle.sha256 == sha256(path)
    assert bundle.name == path.name
    assert set(bundle.members) == {"model.xml", "model.bin", "golden.npz", "drift.json"}
    assert bundle.contract.student == "tiny"
    assert read_golden(bundle).inputs.shape == (2, 1, 64, 64)
    with pytest.raises(TypeError):
        bundle.members["model.xml"] = b""


def test_nothing_is_unpacked_to_disk(bundle_file, tmp_path, monkeypatch):
    path = bundle_file()
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    read_bundle(path)
    assert sorted(tmp_path.rglob("*")) == before


def test_500_random_mutations_never_give_other_content_or_other_errors(bundle_file, tmp_path):
    path = bundle_file()
    good, data = read_bundle(path), path.read_bytes()
    chance = random.Random(4)  # noqa: S311
    lines = []
    for _ in range(500):
        damaged = bytearray(data)
        for _ in range(chance.choice((1, 1, 3))):
            # Two thirds where structure is: the contract and the directory at the end.
            place = chance.randrange(len(data)) if chance.random() < 0.4 else len(data) - 1 - chance.randrange(700)
            damaged[place] = chance.randrange(256)
        target = tmp_path / "damaged.sccg"
        target.write_bytes(damaged)
        try:
            bundle = read_bundle(target)
        except SccgError as error:
            lines.append(str(error))
        else:
            assert bundle.contract == good.contract
            assert dict(bundle.members) == dict(good.members)
    assert len(lines) > 300
    assert not any("\n" in line for line in lines)


def test_every_truncation_is_refused(bundle_file, tmp_path):
    data = bundle_file().read_bytes()
    target = tmp_path / "short.sccg"
    for length in [0, 1, 3, 30, *range(100, len(data), 997), len(data) - 1]:
        target.write_bytes(data[:length])
        with pytest.raises(BundleError):
            read_bundle(target)


@given(data=st.binary(max_size=400))
@example(data=b"PK\x05\x06" + bytes(18))
def test_no_bytes_but_a_bundle_are_taken(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.sccg"
    path.write_bytes(data)
    with pytest.raises(BundleError) as raised:
        read_bundle(path)
    assert str(raised.value).isprintable()


@given(members=st.lists(st.tuples(st.text(min_size=1, max_size=20), st.binary(max_size=50)), max_size=6))
@example(members=[("contract.json", b"{}")])
@example(members=[("contract.json", b'{"format_version": 1}'), ("model.xml", b"")])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_no_zip_of_other_members_is_taken(members, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.sccg"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name.encode("utf-8", "replace").decode()), content)
    with pytest.raises(BundleError) as raised:
        read_bundle(path)
    assert str(raised.value).isprintable()


def test_a_changed_member_does_not_fit_its_hash(contents, make, tmp_path):
    contract, members = contents
    path = make.pack(tmp_path / "good.sccg", contract, members)
    with zipfile.ZipFile(path) as archive:
        described = archive.read("contract.json")
    with zipfile.ZipFile(tmp_path / "changed.sccg", "w") as archive:
        archive.writestr("contract.json", described)
        for name, content in members.items():
            archive.writestr(name, content + b" " if name == "drift.json" else content)
    with pytest.raises(BundleError, match=r"drift\.json does not fit"):
        read_bundle(tmp_path / "changed.sccg")


def test_compressed_members_are_refused(contents, make, tmp_path):
    path = make.pack(tmp_path / "small.sccg", *contents, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(BundleError, match="compressed"):
        read_bundle(path)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a\\b", "..", "folder/", "C:evil"])
def test_members_that_are_paths_are_refused(bundle_file, name):
    path = bundle_file()
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(name), b"")
    with pytest.raises(BundleError, match="path"):
        read_bundle(path)


def test_unexpected_members_are_refused(bundle_file):
    path = bundle_file()
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("run.py", b"print()")
    with pytest.raises(BundleError, match=r"unexpected run\.py"):
        read_bundle(path)


def test_duplicate_members_are_refused(bundle_file):
    path = bundle_file()
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("drift.json", b"{}")
    with pytest.raises(BundleError, match="twice"):
        read_bundle(path)


@pytest.mark.parametrize("last", ["contract.json", "model.xml", "model.bin", "golden.npz"])
def test_members_in_another_order_are_refused(bundle_file, tmp_path, last):
    with zipfile.ZipFile(bundle_file()) as archive, zipfile.ZipFile(tmp_path / "moved.sccg", "w") as moved:
        for name in sorted(archive.namelist(), key=lambda name: name == last):
            moved.writestr(name, archive.read(name))
    with pytest.raises(BundleError, match="another order"):
        read_bundle(tmp_path / "moved.sccg")


@pytest.mark.parametrize("name", ["model.bin", "golden.npz", "drift.json"])
def test_missing_members_are_refused(contents, make, tmp_path, name):
    contract, members = contents
    del members[name]
    with pytest.raises(BundleError, match=f"lacks {name}"):
        read_bundle(make.pack(tmp_path / "poor.sccg", contract, members))


def _directory(data):
    """Where the directory of the zip begins (the golden slices are a zip of their own)."""
    return struct.unpack("<I", data[-6:-2])[0]


def test_encrypted_members_are_refused(bundle_file):
    path = bundle_file()
    data = bytearray(path.read_bytes())
    directory = _directory(data)
    data[directory + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match="encrypted"):
        read_bundle(path)


def test_a_size_that_is_declared_too_large_is_refused_before_reading(bundle_file):
    path = bundle_file()
    data = bytearray(path.read_bytes())
    directory = _directory(data)
    data[directory + 20 : directory + 28] = struct.pack("<II", MAX_BYTES, MAX_BYTES)
    path.write_bytes(data)
    with pytest.raises(BundleError, match="512 MiB"):
        read_bundle(path)


def test_a_large_contract_is_refused(tmp_path):
    path = tmp_path / "large.sccg"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("contract.json", b" " * (4 * 1024**2 + 1))
    with pytest.raises(BundleError, match="4 MiB"):
        read_bundle(path)


def test_another_format_version_is_refused(bundle_file, tmp_path):
    path = bundle_file()
    with zipfile.ZipFile(path) as archive:
        text = archive.read("contract.json").decode()
    with zipfile.ZipFile(tmp_path / "new.sccg", "w") as archive:
        archive.writestr("contract.json", text.replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(BundleError, match="format 2"):
        read_bundle(tmp_path / "new.sccg")


def test_what_is_no_bundle_is_refused(tmp_path):
    for name, content in {"text.sccg": b"hello", "empty.sccg": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BundleError, match=name):
            read_bundle(tmp_path / name)
    with pytest.raises(BundleError, match="No such file"):
        read_bundle(tmp_path / "none.sccg")
    with pytest.raises(BundleError):
        read_bundle(tmp_path)


def test_verification_sees_the_very_bytes_and_can_refuse(bundle_file):
    path = bundle_file()
    seen = []
    read_bundle(path, seen.append)
    assert seen == [path.read_bytes()]

    def refuse(data):
        raise NotTrustedError("no signature")

    with pytest.raises(NotTrustedError):
        read_bundle(path, refuse)


class _Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("damage", ["pickle", "missing", "float64", "shape", "nan", "garbage"])
def test_golden_slices_that_cannot_be_used_are_refused(contents, make, tmp_path, damage):
    contract, members = contents
    arrays = dict.fromkeys(("inputs", "fp32_outputs", "engine_outputs"), np.zeros((1, 1, 8, 8), np.float32))
    if damage == "pickle":
        arrays["inputs"] = np.array([_Payload(tmp_path / "was here")])
    elif damage == "missing":
        del arrays["engine_outputs"]
    elif damage == "float64":
        arrays["inputs"] = np.zeros((1, 1, 8, 8))
    elif damage == "shape":
        arrays["inputs"] = np.zeros((2, 1, 8, 8), np.float32)
    elif damage == "nan":
        arrays["inputs"] = np.full((1, 1, 8, 8), np.nan, np.float32)
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    members["golden.npz"] = b"garbage" if damage == "garbage" else stream.getvalue()
    bundle = read_bundle(make.pack(tmp_path / "golden.sccg", contract, members))
    with pytest.raises(BundleError, match=r"golden\.npz"):
        read_golden(bundle)
    assert not (tmp_path / "was here").exists()


def test_a_bundle_can_be_read_without_an_engine(bundle_file):
    code = "import sys, pathlib; from sccg_runtime.bundle import read_bundle; read_bundle(pathlib.Path(sys.argv[1]));"
    code += "assert not {'openvino', 'pydicom', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code, bundle_file()], check=True)


def test_copies_have_the_same_hash(bundle_file, tmp_path):
    path = bundle_file()
    copy = shutil.copy(path, tmp_path / "copy.sccg")
    assert read_bundle(copy).sha256 == read_bundle(path).sha256

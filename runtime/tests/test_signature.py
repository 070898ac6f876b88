"""Signatures made by model-signing's own command decide what is loaded; nothing is parsed before."""

import json
import random
import shutil
import socket
import sys
from pathlib import Path

import pytest

from sccg_runtime import load
from sccg_runtime.bundle import read_bundle
from sccg_runtime.cli import main
from sccg_runtime.errors import InputError, MissingDependencyError, NotTrustedError
from sccg_runtime.signature import MAX_SIGNATURE_BYTES, signature_path, verifier


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """``NAME.pem`` and ``NAME.pub.pem``: two that fit, one of another curve, one of another kind."""
    pytest.importorskip("model_signing", reason='model-signing is not installed: pip install "sccg-runtime[sign]"')
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    folder = tmp_path_factory.mktemp("keys")
    made = {
        "hospital": ec.generate_private_key(ec.SECP256R1()),
        "stranger": ec.generate_private_key(ec.SECP384R1()),
        "curve": ec.generate_private_key(ec.SECP256K1()),
        "rsa": rsa.generate_private_key(65537, 2048),
    }
    pem = serialization.Encoding.PEM
    for name, key in made.items():
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
        (folder / f"{name}.pem").write_bytes(private)
        (folder / f"{name}.pub.pem").write_bytes(public)
    return folder


@pytest.fixture
def sign(keys):
    def make(bundle, name="hospital"):
        from model_signing.signing import Config

        Config().use_elliptic_key_signer(private_key=keys / f"{name}.pem").sign(bundle, signature_path(bundle))
        return bundle

    return make


@pytest.fixture
def unparsed(monkeypatch):
    """Reading a zip is an error."""

    def parsed(*_):
        raise AssertionError("the bundle was parsed")

    monkeypatch.setattr("sccg_runtime.bundle._members", parsed)


def test_a_signed_bundle_is_taken_by_the_api_and_every_command(bundle_file, series, sign, keys, tmp_path, capsys):
    bundle = sign(bundle_file())
    key = str(keys / "hospital.pub.pem")
    assert load(str(bundle), public_key=key).sha256 == load(bundle).sha256
    required = ["--require-signature", key]
    assert main(["info", str(bundle), *required]) == 0
    assert main(["selftest", str(bundle), *required]) == 0
    assert main(["convert", str(series()), str(tmp_path / "out"), "--bundle", str(bundle), *required]) == 0
    assert "5 slices" in capsys.readouterr().out


def test_a_bundle_may_be_renamed_with_its_signature(bundle_file, sign, keys, tmp_path):
    bundle = sign(bundle_file())
    moved = shutil.move(bundle, tmp_path / "another name.sccg")
    with pytest.raises(NotTrustedError, match=r"not signed: there is no another name\.sccg\.sig"):
        load(moved, public_key=keys / "hospital.pub.pem")
    shutil.move(signature_path(bundle), signature_path(moved))
    assert load(moved, public_key=keys / "hospital.pub.pem").name == "another name.sccg"


def _altered_signature(signature):
    values = json.loads(signature.read_text())
    made = values["dsseEnvelope"]["signatures"][0]["sig"]
    values["dsseEnvelope"]["signatures"][0]["sig"] = made[:20] + ("A" if made[20] != "A" else "B") + made[21:]
    signature.write_text(json.dumps(values))


REFUSED = {
    "unsigned": (lambda bundle, other: signature_path(bundle).unlink(), "is not signed: there is no"),
    "a folder as signature": (
        lambda bundle, other: (signature_path(bundle).unlink(), signature_path(bundle).mkdir()),
        "is not signed: there is no",
    ),
    "altered": (lambda bundle, other: bundle.write_bytes(bundle.read_bytes() + b" "), "it was changed"),
    "another's signature": (
        lambda bundle, other: shutil.copy(signature_path(other), signature_path(bundle)),
        "changed",
    ),
    "altered signature": (lambda bundle, other: _altered_signature(signature_path(bundle)), "damaged"),
    "large signature": (
        lambda bundle, other: signature_path(bundle).write_bytes(b" " * (MAX_SIGNATURE_BYTES + 1)),
        "too large",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.usefixtures("unparsed")
def test_what_is_not_trusted_is_one_line_and_code_4_before_it_is_parsed(
    bundle_file, make, series, sign, keys, tmp_path, capsys, case
):
    change, told = REFUSED[case]
    bundle, other = sign(bundle_file()), sign(bundle_file(make.contract(student="other")))
    change(bundle, other)
    required = ["--require-signature", str(keys / "hospital.pub.pem")]
    commands = (["info", str(bundle)], ["selftest", str(bundle)], ["convert", "in", "out", "--bundle", str(bundle)])
    for command in commands:
        assert main([*command, *required]) == 4
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.startswith("error: ")
        assert told in shown.err
        assert shown.err.count("\n") == 1


@pytest.mark.usefixtures("unparsed")
def test_the_signature_of_another_key_is_not_trusted(bundle_file, sign, keys):
    with pytest.raises(NotTrustedError, match=r"does not fit hospital\.pub\.pem"):
        load(sign(bundle_file(), "stranger"), public_key=keys / "hospital.pub.pem")


@pytest.mark.parametrize("content", [b"", b"{}", b"null", b"\xff\xfe", b"[" * 100_000, b'{"verificationMaterial": {}}'])
@pytest.mark.usefixtures("unparsed")
def test_a_file_that_is_no_signature_is_not_trusted(bundle_file, keys, content):
    bundle = bundle_file()
    signature_path(bundle).write_bytes(content)
    with pytest.raises(NotTrustedError, match="damaged"):
        load(bundle, public_key=keys / "hospital.pub.pem")


@pytest.mark.usefixtures("unparsed")
def test_no_change_of_any_byte_is_trusted(bundle_file, sign, keys):
    bundle = sign(bundle_file())
    data, chance = bundle.read_bytes(), random.Random(5)  # noqa: S311
    verify = verifier(bundle, keys / "hospital.pub.pem")
    verify(data)
    for _ in range(100):
        changed = bytearray(data)
        changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        with pytest.raises(NotTrustedError, match="it was changed"):
            verify(bytes(changed))


def test_a_damaged_signature_never_makes_another_bundle_trusted(bundle_file, sign, keys):
    bundle = sign(bundle_file())
    data, sound, chance = bundle.read_bytes(), signature_path(bundle).read_bytes(), random.Random(6)  # noqa: S311
    verify = verifier(bundle, keys / "hospital.pub.pem")
    for _ in range(100):
        changed = bytearray(sound)
        changed[chance.randrange(len(sound))] = chance.randrange(256)
        signature_path(bundle).write_bytes(changed)
        with pytest.raises(NotTrustedError):
            verify(data + b" ")


def test_the_bytes_that_were_read_are_verified_not_the_file(bundle_file, make, sign, keys):
    """Between reading and verifying, the altered file is replaced by the one that was signed."""
    bundle = sign(bundle_file())
    data = bundle.read_bytes()
    shutil.copy(bundle_file(make.contract(student="evil")), bundle)
    verify = verifier(bundle, keys / "hospital.pub.pem")

    def late(read):
        bundle.write_bytes(data)
        verify(read)

    with pytest.raises(NotTrustedError, match="it was changed"):
        read_bundle(bundle, late)
    assert read_bundle(bundle, verify).contract.student == "tiny"


@pytest.mark.parametrize("name", ["none.pem", "rsa.pub.pem", "curve.pub.pem", "hospital.pem", "text.pem"])
def test_a_key_that_cannot_be_used_is_bad_input(bundle_file, keys, name):
    (keys / "text.pem").write_text("no key")
    with pytest.raises(InputError, match=name) as raised:
        load(bundle_file(), public_key=keys / name)
    assert raised.value.exit_code == 2


def test_a_missing_package_is_named_with_its_extra(bundle_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(MissingDependencyError, match=r"sccg-runtime\[sign\]"):
        load(bundle_file(), public_key=Path("key.pem"))


def test_verifying_asks_no_network_and_keeps_stdout_for_results(bundle_file, sign, keys, monkeypatch, capsys):
    def connected(*_):
        raise AssertionError("a connection was made")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, connected)
    monkeypatch.setattr(socket, "getaddrinfo", connected)
    bundle = sign(bundle_file())
    values = json.loads(signature_path(bundle).read_text())
    del values["verificationMaterial"]["publicKey"]["hint"]  # as old signers wrote it; model-signing prints a warning
    signature_path(bundle).write_text(json.dumps(values))
    assert main(["info", str(bundle), "--json", "-", "--require-signature", str(keys / "hospital.pub.pem")]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["student"] == "tiny"
    assert "WARNING" in shown.err

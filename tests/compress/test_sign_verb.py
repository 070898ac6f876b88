"""``sccg-compress sign`` and ``verify``: what they write is OpenSSF's own, and each thing that is wrong is one line."""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Cli

from sccg_runtime.files import sha256
from sccg_runtime.signature import signature_path

PASSWORD = "correct horse"  # noqa: S105


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``ours`` with its public half and an encrypted copy, ``other``, an RSA key, and one whose curve is not known."""
    pytest.importorskip("model_signing", reason="model-signing is not installed: pip install '.[sign]'")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    folder = tmp_path_factory.mktemp("keys")
    plain, form = serialization.NoEncryption(), serialization.PrivateFormat.PKCS8
    pem = serialization.Encoding.PEM
    ours, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP521R1())
    for name, key in (("ours", ours), ("other", other), ("rsa", rsa.generate_private_key(65537, 2048))):
        (folder / f"{name}.pem").write_bytes(key.private_bytes(pem, form, plain))
        public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
        (folder / f"{name}.pub.pem").write_bytes(public)
    locked = serialization.BestAvailableEncryption(PASSWORD.encode())
    (folder / "locked.pem").write_bytes(ours.private_bytes(pem, form, locked))
    p256, p192 = (bytes.fromhex(f"06082a8648ce3d0301{number}") for number in ("07", "01"))
    der = ours.private_bytes(serialization.Encoding.DER, form, plain).replace(p256, p192)
    armour = "-----{} PRIVATE KEY-----\n"
    text = armour.format("BEGIN") + base64.encodebytes(der).decode() + armour.format("END")
    (folder / "curve.pem").write_text(text, encoding="ascii")
    return folder


@pytest.fixture
def bundle(bundles: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(bundles / "small.sccg", tmp_path / "my model.sccg"))


def test_a_signed_bundle_verifies_here_and_with_openssf(run: Cli, bundle: Path, keys: Path) -> None:
    from model_signing.verifying import Config

    said = run("sign", bundle, "--key", keys / "ours.pem")
    assert said.code == 0, said
    assert str(signature_path(bundle)) in said.out
    checked = run("verify", bundle, "--key", keys / "ours.pub.pem")
    assert checked.code == 0, checked
    assert sha256(bundle) in checked.out
    Config().use_elliptic_key_verifier(public_key=keys / "ours.pub.pem").verify(bundle, signature_path(bundle))


def test_signing_again_replaces_the_signature(run: Cli, bundle: Path, keys: Path) -> None:
    for name, fails in (("ours", "other"), ("other", "ours")):
        assert run("sign", bundle, "--key", keys / f"{name}.pem").code == 0
        assert run("verify", bundle, "--key", keys / f"{name}.pub.pem").code == 0
        run("verify", bundle, "--key", keys / f"{fails}.pub.pem").refused("made with another key", code=4)
    assert {path.name for path in bundle.parent.iterdir()} == {bundle.name, signature_path(bundle).name}


def test_an_unsigned_or_changed_bundle_is_code_4(run: Cli, bundle: Path, keys: Path) -> None:
    run("verify", bundle, "--key", keys / "ours.pub.pem").refused("is not signed", code=4)
    run("sign", bundle, "--key", keys / "ours.pem")
    bundle.write_bytes(bundle.read_bytes() + b"\0")
    run("verify", bundle, "--key", keys / "ours.pub.pem").refused("it was changed", code=4)


def test_an_encrypted_key_asks_for_its_password(
    run: Cli, bundle: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(text: str, **_: object) -> str:
        asked.append(text)
        return PASSWORD if len(asked) == 1 else "wrong"

    monkeypatch.setattr("typer.prompt", answer)
    assert run("sign", bundle, "--key", keys / "locked.pem").code == 0
    assert run("verify", bundle, "--key", keys / "ours.pub.pem").code == 0
    before = signature_path(bundle).read_bytes()
    run("sign", bundle, "--key", keys / "locked.pem").refused("locked.pem does not open with this password")
    assert signature_path(bundle).read_bytes() == before
    assert "locked.pem" in asked[0]


def test_without_a_terminal_an_encrypted_key_is_bad_input(run: Cli, bundle: Path, keys: Path) -> None:
    command = [sys.executable, "-m", "sccg_compress", "sign", str(bundle), "--key", str(keys / "locked.pem")]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "locked.pem has a password, and there is no terminal to ask for it" in done.stderr
    assert not signature_path(bundle).exists()


@pytest.mark.parametrize("name", ["none.pem", "rsa.pem", "ours.pub.pem", "curve.pem"])
def test_a_key_that_cannot_sign_is_bad_input(run: Cli, bundle: Path, keys: Path, name: str) -> None:
    run("sign", bundle, "--key", keys / name).refused(name)
    assert not signature_path(bundle).exists()


def test_what_is_no_sound_bundle_is_not_signed(run: Cli, bundle: Path, keys: Path) -> None:
    bundle.write_bytes(bundle.read_bytes()[:-100])
    run("sign", bundle, "--key", keys / "ours.pem").refused("my model.sccg")
    run("sign", bundle.with_name("gone.sccg"), "--key", keys / "ours.pem").refused("gone.sccg: No such file")
    assert list(bundle.parent.iterdir()) == [bundle]


def test_a_folder_is_no_bundle(run: Cli, keys: Path) -> None:
    for place in (".", "/"):
        run("verify", place, "--key", keys / "ours.pub.pem").refused(code=2)

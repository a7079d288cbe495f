"""What a publish signs, held against the model_signing library's own verification and its command."""

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from finished_run import REPO, FinishedRun
from local_hub import LocalHub
from model_signing.verifying import Config

from titanflow.common.errors import ConfigError
from titanflow.publish.integrity import check_folder
from titanflow.publish.publish import publish
from titanflow.publish.settings import read_settings
from titanflow.publish.signing.key import PASSWORD, read_public_key

SECRET = "correct horse"


def write_key(folder: Path, name: str = "key", private: object = None, password: str = "") -> Path:
    """A private key's file, with its public half beside it."""
    private = private or ec.generate_private_key(ec.SECP256R1())
    locked = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    path = folder / f"{name}.pem"
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    path.with_suffix(".pub").write_bytes(public)
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return write_key(tmp_path)


@pytest.fixture
def signed(finished: FinishedRun, key: Path) -> Path:
    """A signed folder, away from its run."""
    result = publish(finished.to_publish(sign_key=str(key)))
    return shutil.copytree(result.location, key.parent / "elsewhere")


def by_command(folder: Path, public: Path) -> int:
    command = [sys.executable, "-m", "model_signing", "verify", "key"]
    command += ["--signature", f"{folder}/model.sig", "--public_key", str(public), str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode


def by_library(folder: Path, public: Path) -> str:
    """What the library's own verification says: nothing if the signature fits."""
    try:
        Config().use_elliptic_key_verifier(public_key=public).verify(folder, folder / "model.sig")
    except ValueError as error:
        return str(error)
    return ""


def by_us(folder: Path, public: Path) -> list[str]:
    """The checks that fail, as `titanflow verify --key` shows them."""
    return [f"{check.name} {check.found}" for check in check_folder(folder, public)[0] if not check.passed]


def test_the_library_and_its_command_verify_what_was_signed(signed: Path, key: Path) -> None:
    public = key.with_suffix(".pub")
    # What git, the Hub and its client put beside a model is signed by nobody.
    (signed / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    (signed / ".cache").mkdir()
    (signed / ".cache" / "note").touch()
    assert by_library(signed, public) == ""
    assert by_command(signed, public) == 0
    assert by_us(signed, public) == []
    (check,) = [check for check in check_folder(signed, public)[0] if check.name == "model.sig"]
    assert check.found == f"signed by the owner of {public}, every file of it"


def test_every_file_but_itself_is_signed(signed: Path) -> None:
    envelope = json.loads((signed / "model.sig").read_text())["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    names = {one["name"] for one in statement["predicate"]["resources"]}
    assert names == {path.name for path in signed.iterdir()} - {"model.sig"}
    assert {"README.md", "titanflow.json", "model.safetensors"} <= names
    assert statement["subject"][0]["name"] == "stdlib-sft"


@pytest.mark.parametrize("name", ["README.md", "titanflow.json", "model.safetensors", "model.sig"])
def test_a_changed_byte_fails(signed: Path, key: Path, name: str) -> None:
    data = (signed / name).read_bytes()
    place = len(data) // 2
    (signed / name).write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    assert any(one.startswith("model.sig doesn't fit") for one in by_us(signed, key.with_suffix(".pub")))
    assert by_command(signed, key.with_suffix(".pub")) == 1


def test_a_file_that_was_added_or_removed_fails(signed: Path, key: Path) -> None:
    public = key.with_suffix(".pub")
    (signed / "modeling_evil.py").write_text("")
    assert "Extra files found in model" in by_library(signed, public)
    assert any(one.endswith("not as they were signed: modeling_evil.py") for one in by_us(signed, public))
    (signed / "modeling_evil.py").unlink()
    (signed / "README.md").unlink()
    assert "Missing files" in by_library(signed, public)
    assert any(one.endswith("not as they were signed: README.md") for one in by_us(signed, public))


def test_whoever_writes_the_list_anew_can_t_sign_it(signed: Path, key: Path, tmp_path: Path) -> None:
    other = write_key(tmp_path, "other").with_suffix(".pub")
    (found,) = by_us(signed, other)
    assert "Key mismatch" in found
    (signed / "model.sig").unlink()
    (found,) = by_us(signed, key.with_suffix(".pub"))
    assert found.startswith("model.sig is missing: titanflow.json says that the key ")
    assert [check.name for check in check_folder(signed)[0] if not check.passed] == ["model.sig"]


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff\xfe", b"hello"])
def test_a_file_that_is_no_signature_is_called_so(signed: Path, key: Path, data: bytes) -> None:
    """The message was a dictionary's missing key alone."""
    (signed / "model.sig").write_bytes(data)
    (found,) = by_us(signed, key.with_suffix(".pub"))
    assert "it is no signature by a key (" in found


def test_without_a_key_it_is_said_that_nothing_was_checked(signed: Path) -> None:
    found = {check.name: check for check in check_folder(signed)[0]}
    assert found["model.sig"].passed
    assert "no key was given to check it: --key PUBLIC.pem" in found["model.sig"].found


def test_an_unsigned_model_has_no_signature_to_check(finished: FinishedRun, key: Path) -> None:
    folder = Path(publish(finished.to_publish()).location)
    assert by_us(folder, key.with_suffix(".pub")) == ["model.sig there is none"]
    assert "model.sig" not in {check.name for check in check_folder(folder)[0]}
    assert "Signature" not in (folder / "README.md").read_text()


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_the_same_run_signed_again_gives_the_same_bytes(
    finished: FinishedRun, hub: LocalHub, tmp_path: Path, curve: ec.EllipticCurve
) -> None:
    key = write_key(tmp_path, private=ec.generate_private_key(curve))
    run = finished.to_publish(target="hub", repo_id=REPO, sign_key=str(key))
    first, again = publish(run), publish(run)
    assert first.files["model.sig"] == again.files["model.sig"]
    assert len(hub.repos[REPO].commits) == 2
    folder = tmp_path / "downloaded"
    for name, data in hub.repos[REPO].files("run-7").items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    assert by_us(folder, key.with_suffix(".pub")) == []
    assert by_library(folder, key.with_suffix(".pub")) == ""


def test_the_card_says_how_to_verify_it_and_holds_no_path_of_the_key(signed: Path, key: Path) -> None:
    card = (signed / "README.md").read_text()
    digest = subprocess.run(["sha256sum", key.with_suffix(".pub")], capture_output=True, text=True, check=True)
    assert digest.stdout.split()[0] in card
    assert "model_signing verify key --signature" in card
    assert "titanflow verify path/to/this/folder --key PUBLIC.pem" in card
    assert json.loads((signed / "titanflow.json").read_text())["signed_by"] in card
    for path in signed.iterdir():
        assert str(key.parent).encode() not in path.read_bytes(), path


def test_a_password_comes_from_the_environment_and_stays_there(
    finished: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = write_key(tmp_path, password=SECRET)
    run = finished.to_publish(sign_key=str(key))
    with pytest.raises(ConfigError, match=f"an encrypted key, and no password[^!]*set {PASSWORD}"):
        read_settings(run)
    monkeypatch.setenv(PASSWORD, "wrong horse")
    with pytest.raises(ConfigError, match=f"whose password is not the one in {PASSWORD}") as caught:
        read_settings(run)
    assert "wrong horse" not in str(caught.value)
    monkeypatch.setenv(PASSWORD, SECRET)
    result = publish(run)
    assert by_us(Path(result.location), key.with_suffix(".pub")) == []
    for path in Path(result.location).iterdir():
        assert SECRET.encode() not in path.read_bytes()


def test_a_key_that_can_t_sign_is_refused_before_anything_is_trained(
    finished: FinishedRun, key: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.pem").touch()
    (tmp_path / "text.pem").write_text("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n")
    write_key(tmp_path, "rsa", rsa.generate_private_key(65537, 2048))
    write_key(tmp_path, "edwards", ed25519.Ed25519PrivateKey.generate())
    write_key(tmp_path, "bitcoin", ec.generate_private_key(ec.SECP256K1()))
    expected = {
        "gone.pem": "which can't be read: No such file or directory",
        ".": "which can't be read: Is a directory",
        "empty.pem": "which is no private key in PEM",
        "text.pem": "which is no private key in PEM",
        "key.pub": "which is a public key",
        "rsa.pem": "which is a key of no elliptic curve",
        "edwards.pem": "which is a key of no elliptic curve",
        "bitcoin.pem": "which is a key of the curve secp256k1",
    }
    for name, says in expected.items():
        run = finished.to_publish(sign_key=str(tmp_path / name))
        run.origins["sign_key"] = "publish.yaml:3"
        with pytest.raises(ConfigError) as caught:
            read_settings(run)
        assert str(caught.value).startswith("publish.yaml:3: publish.sign_key: found /"), name
        assert says in str(caught.value), name
        assert "expected: a private key of an elliptic curve (P-256, P-384, P-521) in PEM" in str(caught.value)
        assert "c2VjcmV0" not in str(caught.value)


def test_without_the_package_the_plan_says_what_to_install(
    finished: FinishedRun, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"'model-signing' is not installed[^!]*pip install 'titanflow\[sign\]'"):
        read_settings(finished.to_publish(sign_key=str(key)))


def test_a_private_key_is_no_key_to_verify_with(key: Path) -> None:
    with pytest.raises(ConfigError, match="which is a private key"):
        read_public_key(str(key))
    with pytest.raises(ConfigError, match=r"--key: found .*gone\.pem, which can't be read"):
        read_public_key(str(key.parent / "gone.pem"))


def test_the_command_takes_the_key(signed: Path, key: Path) -> None:
    command = [sys.executable, "-m", "titanflow.cli.main", "verify", str(signed), "--key"]
    missing = subprocess.run([*command, "none.pem"], env=os.environ, capture_output=True, text=True, check=False)
    assert (missing.returncode, "none.pem, which can't be read" in missing.stderr) == (2, True)
    # Of other bytes no model is loaded.
    (signed / "README.md").write_text("# mine\n")
    checked = subprocess.run([*command, str(key.with_suffix(".pub"))], capture_output=True, text=True, check=False)
    assert checked.returncode == 1, checked.stderr
    assert "✗ model.sig" in checked.stdout
    assert "not as they were signed: README.md" in checked.stdout

"""The keys of a signature: the private one is read and checked long before anything is trained.

A message never quotes a key's file, and the password comes from the environment alone.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titanflow.common.errors import ConfigError, Problem
from titanflow.common.files import expanded

if TYPE_CHECKING:
    from titanflow.config.keys.after_training import Publish
    from titanflow.runs.contract import StageRun

PASSWORD = "TITANFLOW_SIGN_PASSWORD"
"""The environment variable with the password of an encrypted private key."""
CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
"""The curves that model-signing takes."""
PRIVATE_EXPECTED = f"a private key of an elliptic curve ({', '.join(CURVES.values())}) in PEM"
PUBLIC_EXPECTED = f"a public key of an elliptic curve ({', '.join(CURVES.values())}) in PEM"
HINT = "openssl ecparam -name prime256v1 -genkey -noout -out key.pem"
NOT_INSTALLED = "pip install 'titanflow[sign]'"


class UnusableKeyError(Exception):
    """Why a key can't be used, and what to do."""

    def __init__(self, found: str, hint: str = "") -> None:
        super().__init__(found)
        self.hint = hint


@dataclass(frozen=True)
class SignKey:
    """A private key and its password; ``fingerprint`` is the SHA-256 of the public key's PEM file."""

    path: Path
    password: bytes | None
    private: Any

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self.private.public_key())


def key_problems(settings: Publish, run: StageRun) -> list[Problem]:
    """Why ``sign_key`` can't sign; nothing if it can, or if there is none."""
    try:
        read_sign_key(settings)
    except UnusableKeyError as error:
        origin = run.origins.get("sign_key", "")
        return [Problem(f"found {error}", f"{run.stage}.sign_key", origin, PRIVATE_EXPECTED, error.hint)]
    return []


def read_sign_key(settings: Publish) -> SignKey | None:
    """The key that the settings name; None if they name none.

    Raises:
        UnusableKeyError: it can't be read, or is no key that can sign.
    """
    if settings.sign_key is None:
        return None
    check_installed()
    path, data = _read(settings.sign_key)
    private, password = _load(path, data)
    _check_curve(path, private)
    return SignKey(path, password, private)


def _load(path: Path, data: bytes) -> tuple[Any, bytes | None]:
    """The private key in a file, and its password if it has one."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(data, None), None
    except TypeError:
        password = os.environ.get(PASSWORD, "").encode()
    except (ValueError, UnsupportedAlgorithm):
        what = "a public key" if b"PUBLIC KEY" in data else "no private key in PEM"
        raise UnusableKeyError(f"{path}, which is {what}", HINT) from None
    if not password:
        raise UnusableKeyError(f"{path}, an encrypted key, and no password", f"set {PASSWORD}")
    try:
        return load_pem_private_key(data, password), password
    except (ValueError, UnsupportedAlgorithm):
        raise UnusableKeyError(f"{path}, whose password is not the one in {PASSWORD}") from None


def read_public_key(named: str) -> Path:
    """The path of a public key that can check a signature.

    Raises:
        ConfigError: it can't be read, or is none.
    """
    try:
        check_installed()
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        path, data = _read(named)
        try:
            public = load_pem_public_key(data)
        except Exception:
            what = "a private key" if b"PRIVATE KEY" in data else "no public key in PEM"
            hint = "openssl pkey -in key.pem -pubout -out public.pem"
            raise UnusableKeyError(f"{path}, which is {what}", hint) from None
        _check_curve(path, public)
    except UnusableKeyError as error:
        raise ConfigError(Problem(f"found {error}", "--key", "", PUBLIC_EXPECTED, error.hint)) from None
    return path


def fingerprint_of(public: Any) -> str:
    """The SHA-256 of a public key's PEM file, as ``openssl pkey -pubout`` writes it."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def check_installed() -> None:
    """Raises an UnusableKeyError where the package that signs is missing; imports nothing."""
    if importlib.util.find_spec("model_signing") is None:
        raise UnusableKeyError("a key, and the package 'model-signing' is not installed", NOT_INSTALLED)


def _read(named: str) -> tuple[Path, bytes]:
    path = expanded(named)
    try:
        return path, path.read_bytes()
    except OSError as error:
        raise UnusableKeyError(f"{path}, which can't be read: {error.strerror}") from None


def _check_curve(path: Path, key: Any) -> None:
    curve = getattr(getattr(key, "curve", None), "name", "")
    if curve not in CURVES:
        kind = f"a key of the curve {curve}" if curve else "a key of no elliptic curve"
        raise UnusableKeyError(f"{path}, which is {kind}", HINT)

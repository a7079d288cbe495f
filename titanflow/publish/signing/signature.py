"""``model.sig``: OpenSSF's model signature over all other published files.

Every file's SHA-256 is known by then, so the library is handed these instead of reading terabytes again.
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titanflow.publish.bundle import SIGNATURE

if TYPE_CHECKING:
    from titanflow.publish.signing.key import SignKey

UNSIGNED = (".git", ".gitattributes", ".cache")
"""Files that git, the Hub and its client put beside a model; nothing loads them."""


@dataclass(frozen=True)
class KnownDigests:
    """model-signing's hashing of a folder whose SHA-256s are known; ``digests`` is file → SHA-256 in hex."""

    name: str
    digests: Mapping[str, str]

    def hash(self, model_path: Path, *, files_to_hash: Iterable[Path] | None = None) -> Any:
        """The manifest that a signature holds."""
        del model_path, files_to_hash
        from model_signing._hashing.hashing import Digest
        from model_signing.manifest import Manifest, SerializationType

        kind = SerializationType.from_args(
            {
                "method": "files",
                "hash_type": "sha256",
                # The Hub's cache consists of links.
                "allow_symlinks": True,
                "ignore_paths": sorted((*UNSIGNED, SIGNATURE)),
            }
        )
        items = [
            kind.new_item(name, Digest("sha256", _bytes(sha256)))
            for name, sha256 in sorted(self.digests.items())
            if name != SIGNATURE
        ]
        return Manifest(self.name, items, kind)

    def add_ignored_paths(self, *, model_path: Path, paths: Iterable[Path]) -> None:
        """Ignores nothing more: the digests are of exactly the files that count."""


class _Deterministic:
    """A private key whose signature of the same bytes is always the same (RFC 6979).

    ECDSA draws a number otherwise, so that a run that is published again would give other bytes.
    """

    def __init__(self, private: Any) -> None:
        self.private = private

    def public_key(self) -> Any:
        return self.private.public_key()

    def sign(self, data: bytes, algorithm: Any) -> bytes:
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

        return bytes(self.private.sign(data, ECDSA(algorithm.algorithm, deterministic_signing=True)))


def sign(name: str, digests: Mapping[str, str], key: SignKey) -> bytes:
    """The bytes of ``model.sig`` for a model of that name with these files (file → SHA-256)."""
    from model_signing.signing import Config

    config = Config().use_elliptic_key_signer(private_key=key.path, password=key.password)
    config._signer._private_key = _Deterministic(key.private)
    config.set_hashing_config(KnownDigests(name, digests))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, SIGNATURE)
        config.sign(Path(name), path)
        return path.read_bytes()


def wrong_signature(folder: Path, digests: Mapping[str, str], public_key: Path) -> str:
    """Why a folder's signature doesn't fit its files and the key; empty if it fits."""
    from cryptography.exceptions import InvalidSignature
    from model_signing.verifying import Config

    config = Config().use_elliptic_key_verifier(public_key=public_key)
    config.set_hashing_config(KnownDigests(folder.name, digests))
    try:
        config.verify(folder, folder / SIGNATURE)
    except InvalidSignature:
        return "its own text was changed, or signed with another key"
    except Exception as error:  # the file may hold anything
        said = str(error).partition("\n")[0] or type(error).__name__
        if "Signature mismatch" in said:
            return f"not as they were signed: {_others(folder, digests)}"
        return said if "mismatch" in said else f"it is no signature by a key ({said})"
    return ""


def _others(folder: Path, digests: Mapping[str, str]) -> str:
    """The files that differ from a signature whose key fits; the library's own words hold raw bytes."""
    envelope = json.loads((folder / SIGNATURE).read_text(encoding="utf-8"))["dsseEnvelope"]
    resources = json.loads(base64.b64decode(envelope["payload"]))["predicate"]["resources"]
    signed = {one["name"]: one["digest"] for one in resources}
    names = {*signed, *digests} - {SIGNATURE}
    return ", ".join(sorted(name for name in names if signed.get(name) != digests.get(name)))


def _bytes(sha256: str) -> bytes:
    try:
        return bytes.fromhex(sha256)
    except ValueError:  # the reason why a file couldn't be hashed
        return b""

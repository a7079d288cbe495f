"""The tokenizer that a config names, and the stages that read it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from titanflow.architectures.hf_snapshot import names_repository
from titanflow.common.digests import digest
from titanflow.common.errors import ConfigError
from titanflow.common.files import expanded
from titanflow.config.checks.family import EXPORTED, loaded_exports
from titanflow.config.experiment import Experiment
from titanflow.config.keys.repositories import REVISIONS, misplaced_revision, revision, value
from titanflow.config.module import Module
from titanflow.data.fingerprints import given_files, tokenizer_folder
from titanflow.data.tokenizer.hf_tokenizer import download_tokenizer
from titanflow.data.tokenizer.tokenizer import check_tokenizer
from titanflow.planning.origin.hub_record import COMMIT, WEIGHTS, recorded
from titanflow.runs.manifest import Manifest

KEYS = ("tokenizer.path", "model.hf_assets_path")
"""The keys that may name a tokenizer; the first that does counts."""
EXPECTED = "a folder with tokenizer.json and tokenizer_config.json, or owner/name on the Hub"


@dataclass(frozen=True)
class GivenTokenizer:
    """A tokenizer's folder, the key that names it, and for one from the Hub its repository, revision and commit."""

    key: str
    folder: Path
    repo_id: str = ""
    revision: str | None = None
    commit: str = ""

    @property
    def named(self) -> str:
        return self.repo_id or str(self.folder)

    @property
    def files(self) -> dict[str, str]:
        """SHA-256 of each of its files, by name."""
        return given_files(self.folder)

    @property
    def fingerprint(self) -> str:
        """The digest of its files, wherever they come from."""
        return digest(self.files)

    @property
    def parts(self) -> dict[str, str | None]:
        """Its part of a stage's fingerprint: the files, and for the Hub's also repository, revision and commit."""
        files: dict[str, str | None] = {f"{self.key}: {name}": sha256 for name, sha256 in self.files.items()}
        if not self.repo_id:
            return files
        named = {self.key: self.repo_id, REVISIONS[self.key]: self.revision}
        return {**files, **named, f"{self.key}: {COMMIT}": self.commit}


def given_tokenizer(module: Module, reader: str, workspace: Path, manifest: Manifest) -> GivenTokenizer | None:
    """The tokenizer that a module names; None if it names none, or one that isn't here and that nothing reads.

    ``reader`` is from :func:`reader_of`. If Hub and cache don't have a repository any more, the run's copy in
    ``workspace`` is used.
    """
    key = next((key for key in KEYS if value(module, key)), "")
    named = value(module, key) if key else ""
    if not named or not (reader or expanded(named).is_dir()):
        return None
    try:
        if names_repository(named):
            folder = check_tokenizer(download_tokenizer(named, revision(module, key)))
            return GivenTokenizer(key, folder, named, revision(module, key), folder.name)
        return GivenTokenizer(key, check_tokenizer(named))
    except ConfigError as error:
        if copied := _copied_before(module, key, workspace, manifest):
            return copied
        hint = misplaced_revision(key, named)
        why = f"; {reader}" if module.config["training"]["mock_data"] else ""
        problems = [module.problem(key, f"{one.message}{why}", EXPECTED, hint or one.hint) for one in error.problems]
        raise ConfigError(problems) from None


def _copied_before(module: Module, key: str, workspace: Path, manifest: Manifest) -> GivenTokenizer | None:
    """The copy that the run's stage was made with, if it is still there."""
    files = recorded(module, key, manifest)
    commit, _ = files.pop(COMMIT, ""), files.pop(WEIGHTS, "")
    folder = tokenizer_folder(workspace, digest(files))
    if not commit or not folder.is_dir():
        return None
    return GivenTokenizer(key, folder, value(module, key), revision(module, key), commit)


def reader_of(module: Module, experiment: Experiment) -> str:
    """What reads a training module's tokenizer, in words; empty if nothing does.

    Training on random tokens needs none, unless the model is fine-tuned on text, evaluated or published later.
    """
    if not module.config["training"]["mock_data"]:
        return f"{module.name} trains on text"
    return next(_later_readers(module, experiment), "")


def _later_readers(module: Module, experiment: Experiment) -> Iterator[str]:
    for other in experiment.modules.values():
        if other.base is not None and other.base.folder is None and other.base.stage == module.name:
            yield from filter(None, [reader_of(other, experiment)])
    for user in (one for kind in EXPORTED for one in experiment.of_kind(kind)):
        if module.name in loaded_exports(user, experiment.modules):
            yield f"{user.name} reads the export of {module.name}, which holds a tokenizer"

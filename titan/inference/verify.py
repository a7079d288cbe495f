"""Whether a published model is what was published: its bytes, that it loads, and what it says.

``python -m titan.inference.verify FOLDER_OR_REPO [--revision R] [--key PUBLIC.pem] [--json]`` ends with 0 where all is
as it was published, with 1 where something isn't, and with 2 where there is nothing to verify. Hashes come first:
nothing is loaded of a folder whose bytes are others.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from titanflow.architectures.hf_snapshot import names_repository
from titanflow.common.collector import collector_at_rest
from titanflow.common.console import Output
from titanflow.common.credentials import redact
from titanflow.common.errors import ConfigError, DataError, HubError, Problem, TitanflowError
from titanflow.common.hub_endpoint import hub_endpoint, use_plain_transfer
from titanflow.common.hub_names import is_revision
from titanflow.files.published_folder import model_hint
from titanflow.publish.bundle import LINEAGE
from titanflow.publish.integrity import Check, check_folder, check_tree
from titanflow.publish.signing.key import read_public_key
from titanflow.runs.torchrun import end_with_starter

KINDS = {"a file": Path.is_file, "a pipe": Path.is_fifo, "a socket": Path.is_socket, "a device": Path.is_char_device}
"""What a path may be instead of a folder, and how to find out without opening it."""
TIE = 1e-4
"""Relative to the largest logit: two tokens this close may swap on another machine (:mod:`titan.export.parity`)."""


@dataclass(frozen=True)
class Verified:
    """The checks of a published model; ``commit`` is empty for a folder."""

    source: str
    folder: Path
    commit: str
    checks: list[Check]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder), "passed": self.passed}


def verify(source: str, revision: str | None = None, key: str | None = None) -> Verified:
    """Verifies a published folder, or a repository ``owner/name`` on the Hub.

    ``revision`` is a repository's branch, tag or commit. By default it is the head of ``main``, which everyone loads;
    that must have a tag, which marks what was published. ``key`` is the file of the public key that its signature
    has to fit.
    """
    checks: list[Check] = []
    public_key = read_public_key(key) if key is not None else None
    try:
        is_folder, is_path = bool(source) and Path(source).is_dir(), os.path.lexists(Path(source).parent)
        if is_folder:
            if revision is not None:
                raise ConfigError(Problem("a folder has no revisions", "--revision", expected="owner/name on the Hub"))
            folder, commit = Path(source), ""
        # A repository's name whose first part is a folder here is rather a mistyped path.
        elif names_repository(source) and not is_path:
            folder, commit, checks = download(source, revision)
        else:
            raise ConfigError(no_folder(source))
        by_list, content = check_folder(folder, public_key)
    except OSError as error:  # a folder without rights, a name that no system takes
        expected = "a folder, or owner/name on the Hub"
        raise ConfigError(Problem(f"{source} can't be read: {error.strerror}", expected=expected)) from None
    checks += by_list
    if all(check.passed for check in checks):
        checks += check_model(folder, content.get("greedy"))
    return Verified(source, folder, commit, checks)


def no_folder(source: str) -> Problem:
    """The problem with a path that is no folder: what it is instead, or a folder with a similar name."""
    path, expected = Path(source), "a folder, or owner/name on the Hub"
    if not source:
        return Problem("the name is empty", expected=expected)
    if path.exists():
        kind = next((kind for kind, is_it in KINDS.items() if is_it(path)), "no regular file")
        return Problem(f"{source} is {kind}", expected=expected)
    if path.is_symlink():
        return Problem(f"{source} is a link that leads nowhere", expected=expected)
    beside = [f"{path.parent / one.name}" for one in sorted(path.parent.glob("*")) if one.is_dir()]
    near = difflib.get_close_matches(source, beside, n=1)
    hint = f"did you mean {near[0]}?" if near else model_hint(source)
    return Problem(f"there is no folder {source}", expected=expected, hint=hint)


def download(repo_id: str, revision: str | None) -> tuple[Path, str, list[Check]]:
    """Downloads a revision into the Hub's cache: its folder, its commit, and checks against the Hub."""
    if revision is not None and not is_revision(revision):
        raise ConfigError(Problem(f"found {revision!r}", "--revision", expected="a branch, a tag or a commit"))
    endpoint = hub_endpoint()
    use_plain_transfer(endpoint)
    from huggingface_hub import HfApi, get_token, snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    from titanflow.publish.hub.repository import Repository
    from titanflow.publish.hub.retry import READING, Caller

    if not sys.stderr.isatty():
        disable_progress_bars()
    token = get_token()
    api = HfApi(endpoint=endpoint, token=token, library_name="titanflow")
    repository = Repository(api, repo_id, Caller(repo_id, token or "", advices=READING))
    try:
        commit = repository.commit_of(revision or "main")
    except HubError as error:
        raise HubError(f"There is no folder {repo_id} here, and as a repository of {endpoint}: {error}") from None
    tree = repository.tree(commit)
    if LINEAGE not in tree:
        expected = "a model that titanflow published"
        raise DataError(Problem(f"no {LINEAGE} at {revision or 'main'}", origin=repo_id, expected=expected))
    folder = repository.call(
        f"download {repo_id} at {commit}",
        lambda: snapshot_download(repo_id, revision=commit, endpoint=endpoint, token=token),
    )
    refs = repository.call(f"list the tags of {repo_id}", lambda: api.list_repo_refs(repo_id))
    tags = {ref.name: ref.target_commit for ref in refs.tags}
    return Path(folder), commit, [check_tag(commit, tags, revision), check_tree(Path(folder), tree)]


def check_tag(commit: str, tags: Mapping[str, str], revision: str | None) -> Check:
    """Whether the commit was published: a head without a tag is an interrupted push, or somebody's own commit.

    A revision that was named needs no tag, since a pull request has none.
    """
    names = [name for name, tagged in tags.items() if tagged == commit]
    if names or revision:
        return Check("commit", True, f"{commit}, {'tag ' + ', '.join(names) if names else 'not tagged'}")
    known = f"; --revision verifies one of {', '.join(tags)}" if tags else ""
    return Check("commit", False, f"{commit} is the head of main, and no tag marks it as published{known}")


def check_model(folder: Path, greedy: Any) -> list[Check]:
    """Loads the folder and repeats the continuation that the evaluation recorded.

    ``greedy`` has ``prompt`` and ``continuation`` in token ids; None if none was recorded.
    """
    import torch

    from titan.export.files import check_tokenizer
    from titan.process.quiet import quiet_transformers
    from titan.weights.hf_folder import load_folder
    from titanflow.data.tokenizer.tokenizer import load_tokenizer

    quiet_transformers()
    loaded: list[Any] = []

    def model() -> str:
        found, wrong = load_folder(folder, torch.float32)
        loaded.append(found)
        names = "; ".join(f"{kind} {', '.join(keys[:5])}" for kind, keys in wrong.items() if keys)
        if names:
            raise DataError(f"weights don't fit: {names}")
        return f"{type(found).__name__} of {found.num_parameters():,} parameters, no weight missing or unexpected"

    def tokenizer() -> str:
        check_tokenizer(folder, load_tokenizer(folder))
        return "encodes as it did in training"

    checks = [_attempt("loads", model), _attempt("tokenizer", tokenizer)]
    if all(check.passed for check in checks):
        checks.append(_attempt("generates", lambda: _compare(loaded[0], greedy)))
    return checks


def _attempt(name: str, action: Callable[[], str]) -> Check:
    """A check that passes with what ``action`` returns, and fails with what it raises."""
    try:
        return Check(name, True, action())
    except Exception as error:  # a library may raise anything on a folder that it can't load
        return Check(name, False, redact(str(error)).strip() or type(error).__name__)


def _compare(model: Any, greedy: Any) -> str:
    """Describes the continuation; raises if it differs from the recorded one."""
    from titan.inference.greedy import continue_greedily

    if greedy is None:
        end = model.config.eos_token_id
        said = continue_greedily(model, [end if isinstance(end, int) else 0])
        return f"{len(said.continuation)} tokens; none are recorded to compare with"
    prompt, expected = _recorded(greedy, model.config.vocab_size)
    found = continue_greedily(model, prompt, len(expected)).continuation
    if found == expected:
        return f"the same {len(expected)} tokens as when it was evaluated"
    first = next(place for place, token in enumerate(expected) if found[place] != token)
    if not _is_tie(model, prompt + expected, len(prompt)):
        raise DataError(f"token {first + 1} of the continuation is {found[first]}, was {expected[first]}")
    return f"the same {len(expected)} tokens but for a tie at token {first + 1}"


def _recorded(greedy: Any, vocab_size: int) -> list[list[int]]:
    """The prompt and its continuation; raises if they can't be an evaluation's record."""
    found = [greedy.get(key) for key in ("prompt", "continuation")] if isinstance(greedy, dict) else [None]
    if not all(
        isinstance(tokens, list) and tokens and all(type(token) is int and 0 <= token < vocab_size for token in tokens)
        for tokens in found
    ):
        raise DataError(f"{LINEAGE} records no continuation that can be compared")
    return found  # type: ignore[return-value]


def _is_tie(model: Any, tokens: list[int], start: int) -> bool:
    """Whether each token from ``start`` on is, within rounding, the likeliest one."""
    import torch

    with torch.inference_mode():
        logits = model(torch.tensor([tokens])).logits[0, start - 1 : -1]
    chosen = logits.gather(1, torch.tensor(tokens[start:])[:, None]).squeeze(1)
    return bool((logits.max(-1).values - chosen <= TIE * logits.abs().max()).all())


def show(verified: Verified) -> None:
    from rich.text import Text

    console = Output()
    console.print(Text(verified.source, style="bold"))
    width = max(len(check.name) for check in verified.checks)
    for check in verified.checks:
        mark = ("✓", "green") if check.passed else ("✗", "red")
        console.print(Text.assemble(mark, f" {check.name:{width}}  {check.found}"))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m titan.inference.verify", description=__doc__)
    parser.add_argument("source", help="a folder that was published to, or owner/name on the Hub")
    parser.add_argument("--revision", help="of a repository: a branch, a tag or a commit (main unless given)")
    parser.add_argument("--key", help="the public key (PEM) of whoever should have signed it")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args(arguments)
    # When transformers loads the folder, it has nothing to ask or tell the user.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        with collector_at_rest():
            verified = verify(given.source, given.revision, given.key)
    except TitanflowError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if given.json:
        print(json.dumps(verified.as_json(), indent=2))
    else:
        show(verified)
    return 0 if verified.passed else 1


if __name__ == "__main__":
    end_with_starter()
    sys.exit(main())

"""The publish stage: ``python -m titanflow.publish <run.yaml>`` writes a folder, or pushes to a Hub.

Exit status: 0 published, 2 bad input (nothing was written), 1 the Hub or the disk failed.
"""

from __future__ import annotations

import logging
import re
import sys
import time
import traceback
from pathlib import Path

from titanflow.config.additions import Publish
from titanflow.config.schema import check, dataclass_schema
from titanflow.config.yaml_source import Leaf, Tree
from titanflow.errors import ConfigError, Problem, TitanflowError
from titanflow.evaluated import unpublishable
from titanflow.hub.bundle import CARD, LINEAGE, Bundle, bytes_entry, check_evaluated, from_export
from titanflow.hub.endpoint import hub_endpoint, hub_token, redact, use_plain_transfer
from titanflow.hub.folder import write_folder
from titanflow.hub.lineage import Lineage, lineage_json, read_lineage
from titanflow.stage import ERROR_FILE, PublishResult, StageError, StageRun, write_error, write_result

log = logging.getLogger("titanflow.publish")

REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# What git allows in a tag's name, and nothing that a shell or a URL would read otherwise.
TAG = re.compile(r"(?!.*(\.\.|//|\.lock$|[./]$))[A-Za-z0-9][\w./+-]*")


def publish(run: StageRun) -> PublishResult:
    """Publishes the export of one of the run's models.

    Everything is read and checked before anything is written. The same run published twice changes nothing.

    Raises:
        ConfigError: settings that can't be used.
        DataError: a stage without result or export, or an export that isn't what was evaluated.
        HubError: the Hub refuses or can't be reached.
    """
    started = time.perf_counter()
    settings = read_settings(run)
    lineage = read_lineage(run, settings.model)
    check_scored(lineage, settings)
    bundle = build_bundle(lineage, settings)
    result = to_hub(bundle, settings, run) if settings.target == "hub" else to_folder(bundle, settings, run)
    return result.model_copy(update={"seconds": round(time.perf_counter() - started, 3)})


def read_settings(run: StageRun) -> Publish:
    """The stage's settings, checked without asking a Hub; a plan can call this long before the stage runs.

    Raises:
        ConfigError: every problem that was found.
    """
    tree: Tree = {key: Leaf(value, run.origins.get(key, "")) for key, value in run.config.items()}
    problems = check(tree, dataclass_schema(Publish), "publish.")
    if problems:
        raise ConfigError(problems)
    settings = Publish(**run.config)
    problems = check_names(settings, run)
    if problems:
        raise ConfigError(problems)
    return settings


def check_names(settings: Publish, run: StageRun) -> list[Problem]:
    """What is wrong with the repository's and the tag's names."""
    problems = []
    repo_id, tag = settings.repo_id, settings.tag or run.run
    if settings.target == "hub" and not repo_id:
        origin, hint = run.origins.get("repo_id", ""), "set repo_id, or target: folder"
        problems.append(Problem("target: hub needs a repository", "publish.repo_id", origin, "owner/name", hint))
    elif repo_id and (not REPO_ID.fullmatch(repo_id) or "--" in repo_id or ".." in repo_id):
        origin = run.origins.get("repo_id", "")
        problems.append(Problem(f"{repo_id!r} is no repository's name", "publish.repo_id", origin, "owner/name"))
    if settings.target == "hub" and not TAG.fullmatch(tag):
        origin = run.origins.get("tag", "")
        expected = "letters, digits, '.', '_', '-', '+' and '/', as git has it"
        problems.append(Problem(f"{tag!r} can't be a tag's name", "publish.tag", origin, expected))
    return problems


def check_scored(lineage: Lineage, settings: Publish) -> None:
    """Checks that the model was scored whole, and as it is published.

    Raises:
        ConfigError: the evaluation was limited, or scored a checkpoint.
    """
    evaluation = lineage.evaluation
    problem = unpublishable(evaluation.limit, evaluation.backend) if evaluation is not None else None
    if problem is not None and not settings.dry_run:
        raise ConfigError(problem)


def build_bundle(lineage: Lineage, settings: Publish) -> Bundle:
    """The export's files, the lineage and the card.

    Raises:
        DataError: an export that is incomplete, or isn't what was evaluated.
    """
    # The card is made with huggingface_hub, which reads the environment when it is imported.
    if settings.target == "hub":
        use_plain_transfer(hub_endpoint())
    from titanflow.hub.card import model_card

    bundle = from_export(lineage.export)
    if lineage.evaluation is not None:
        check_evaluated(bundle, lineage.evaluation.digests[lineage.evaluated_as])
    written = {
        LINEAGE: lineage_json(lineage, bundle),
        CARD: model_card(lineage, settings, bundle),
    }
    for name, data in written.items():
        refuse_private(name, data.decode())
    return bundle | {name: bytes_entry(data) for name, data in written.items()}


def refuse_private(name: str, text: str) -> None:
    """Checks that a text to be published holds no token and no path of the user's.

    Raises:
        ConfigError: names the file; never quotes what was found.
    """
    home = str(Path.home())
    if redact(text) != text:
        found = "would publish a token"
    elif len(home) > 1 and re.search(re.escape(home) + r"(/|\b)", text):
        found = "would publish the path of your home folder"
    else:
        return
    hint = "look for it in the experiment's names, data names and tags"
    raise ConfigError(Problem(found, name, hint=hint))


def to_folder(bundle: Bundle, settings: Publish, run: StageRun) -> PublishResult:
    """Writes the bundle to ``folder``, by default ``model`` in the stage's folder."""
    folder = Path(settings.folder).expanduser() if settings.folder else run.folder / "model"
    changed = write_folder(bundle, folder)
    log.info("published %d files to %s%s", len(bundle), folder, "" if changed else " (unchanged)")
    return PublishResult(target="folder", location=str(folder), tag=settings.tag or run.run, files=file_digests(bundle))


def to_hub(bundle: Bundle, settings: Publish, run: StageRun) -> PublishResult:
    """Pushes the bundle to the Hub that ``HF_ENDPOINT`` names, as one commit and a tag."""
    from huggingface_hub import HfApi

    from titanflow.hub.push import push
    from titanflow.hub.repository import Repository
    from titanflow.hub.retry import Caller

    endpoint, token, repo_id = hub_endpoint(), hub_token(), settings.repo_id or ""
    api = HfApi(endpoint=endpoint, token=token, library_name="titanflow")
    pushed = push(
        bundle,
        Repository(api, repo_id, Caller(repo_id, token)),
        tag=settings.tag or run.run,
        branch=settings.revision,
        message=settings.commit_message or f"{run.experiment}, run {run.run}: {settings.model}",
        private=settings.private,
    )
    return PublishResult(
        target="hub",
        location=f"{endpoint}/{repo_id}/tree/{pushed.tag}",
        repo_id=repo_id,
        commit=pushed.commit,
        tag=pushed.tag,
        files=file_digests(bundle),
    )


def file_digests(bundle: Bundle) -> dict[str, str]:
    """File → SHA-256, as the result records it."""
    return {name: entry.sha256 for name, entry in sorted(bundle.items())}


def main(argv: list[str] | None = None) -> int:
    """Publishes what a ``run.yaml`` says and writes ``result.json`` or ``error.json`` beside it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) != 1 or not Path(arguments[0]).is_file():
        print("usage: python -m titanflow.publish <run.yaml>", file=sys.stderr)
        return 2
    run = StageRun.read(Path(arguments[0]))
    (run.folder / ERROR_FILE).unlink(missing_ok=True)
    try:
        result = publish(run)
    except Exception as error:
        return report(run, error)
    write_result(run.folder, result)
    return 0


def report(run: StageRun, error: Exception) -> int:
    """Writes ``error.json`` and returns the exit status; credentials are cut from every text."""
    expected = isinstance(error, TitanflowError)
    status = error.exit_code if isinstance(error, TitanflowError) else 1
    message, trace = redact(str(error)), redact("".join(traceback.format_exception(error)))
    print(message if expected else trace, file=sys.stderr)
    failure = StageError(type=type(error).__name__, message=message, traceback=trace, exit_code=status)
    write_error(run.folder, failure)
    return status


if __name__ == "__main__":
    sys.exit(main())

"""The publish stage: ``python -m titanflow.publish.publish <run.yaml>`` writes a folder, or pushes to a Hub.

Exit status: 0 published or held back by the gate, 2 bad input (nothing was written), 1 the Hub or the disk failed.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from titanflow.common.errors import ConfigError, HubError, Problem
from titanflow.common.files import expanded
from titanflow.common.hub_endpoint import hub_client, hub_endpoint, hub_token, use_plain_transfer
from titanflow.config.keys.after_training import Publish
from titanflow.publish.bundle import (
    CARD,
    LINEAGE,
    SAMPLES,
    SIGNATURE,
    Bundle,
    bytes_entry,
    check_evaluated,
    from_export,
)
from titanflow.publish.folder import preview_folder, write_folder
from titanflow.publish.gate.figures import figures
from titanflow.publish.gate.gate import decide
from titanflow.publish.gate.published import Published, last_in_folder, last_on_hub, mapping
from titanflow.publish.gate.samples import Samples, read_samples
from titanflow.publish.gguf import make_files
from titanflow.publish.lineage import Lineage, lineage_json, read_lineage
from titanflow.publish.private import private_part
from titanflow.publish.settings import published_name, read_settings, tag_of, unpublishable
from titanflow.publish.signing.key import read_sign_key
from titanflow.publish.task_files import scored_numbers, suite_files, task_files
from titanflow.runs.contract import StageRun
from titanflow.runs.errors import ERROR_FILE, log_to_stderr, record_failure
from titanflow.runs.results import GateDecision, PublishResult, write_result
from titanflow.runs.torchrun import end_with_torchrun, forget_ranks

if TYPE_CHECKING:
    from titanflow.publish.hub.repository import Release, Repository

log = logging.getLogger("titanflow.publish.publish")

DOWNLOADED = ".downloaded"
"""The folder, below the stage's, for the pushed files that are downloaded again and checked."""
DECISIONS = 5
"""How often the gate is asked if others keep publishing to the same branch."""


class PublishedMeanwhileError(Exception):
    """Another model was published since the gate decided: ask the gate again."""


@dataclass(frozen=True)
class Candidate:
    """One of a run's models: its settings, its lineage, its exported files, and its score on each kept sample."""

    settings: Publish
    lineage: Lineage
    exported: Bundle
    samples: Samples | None

    def ask_gate(self, last: Published | None) -> Lineage:
        """The lineage with the gate's decision and the model that would be replaced.

        A model that is already published keeps its decision: publishing it again changes nothing.
        """
        if last is not None and last.is_this:
            log.info("%s is this very model: the gate isn't asked again", last.name)
            return replace(self.lineage, gate=last.gate, last=mapping(last.record.get("last")) or None)
        decision = self.decision(last)
        if decision is not None:
            for name, found in figures(decision):
                log.info("gate: %s %s", name, found)
            log.info("gate: %s: %s", "passed" if decision.passed else "held back", decision.reason)
        return replace(self.lineage, gate=decision, last=last.as_json() if last is not None else None)

    def decision(self, last: Published | None) -> GateDecision | None:
        gate, evaluation = self.settings.gate, self.lineage.evaluation
        if not gate.thresholds and not gate.better_than_last:
            return None
        if evaluation is None:
            hint = "add an evaluate module, or leave the gate out"
            raise ConfigError(Problem("found a gate, and nothing was evaluated", "gate", hint=hint))
        return decide(gate, evaluation, self.samples, last)


def publish(run: StageRun) -> PublishResult:
    """Publishes the export of one of the run's models, unless the gate holds it back.

    Everything is read and checked before anything is written. The same run published twice changes nothing.
    """
    started = time.perf_counter()
    settings = read_settings(run)
    lineage = read_lineage(run, settings.model)
    check_scored(lineage, settings)
    samples = read_samples(lineage.evaluation) if lineage.evaluation else None
    candidate = Candidate(settings, lineage, exported_files(lineage, settings), samples)
    result = to_hub(candidate, run) if settings.target == "hub" else to_folder(candidate, run)
    return result.model_copy(update={"seconds": round(time.perf_counter() - started, 3)})


def check_scored(lineage: Lineage, settings: Publish) -> None:
    """Checks that whole tasks were scored, and by the export that is published."""
    if lineage.evaluation is None or settings.dry_run:
        return
    result = lineage.evaluation.result
    if problem := unpublishable(result.stage, result.limit, result.backend, result.part):
        raise ConfigError(problem)


def exported_files(lineage: Lineage, settings: Publish) -> Bundle:
    exported = from_export(lineage.export)
    if lineage.evaluation is not None:
        check_evaluated(exported, lineage.evaluation.result.digests[lineage.evaluation.model])
    # huggingface_hub reads the environment when it is imported, which happens after this.
    if settings.target == "hub":
        use_plain_transfer(hub_endpoint())
    return exported


def build_bundle(candidate: Candidate, lineage: Lineage, gguf: Bundle) -> Bundle:
    """The export's files, the ``gguf`` ones, the samples, the card with what comes with it, the lineage, which lists
    them all, and the signature of all of them, if there is a key for it."""
    from titanflow.publish.card.card import card_files, model_card

    written = card_files(lineage)
    tasks: Bundle = {}
    if (found := lineage.evaluation) is not None:
        own = task_files(found) if candidate.settings.own_tasks else {}
        tasks = {**own, **suite_files(found.asked), **scored_numbers(found.result.contamination)}
    if candidate.samples is not None:
        written[SAMPLES] = candidate.samples.to_bytes()
    bundle = {**candidate.exported, **gguf, **tasks, **{name: bytes_entry(data) for name, data in written.items()}}
    key = read_sign_key(candidate.settings)
    signed_by = key.fingerprint if key is not None else ""
    bundle[CARD] = bytes_entry(model_card(lineage, candidate.settings, bundle, signed_by))
    # The lineage comes last, as it lists all other files.
    bundle[LINEAGE] = bytes_entry(lineage_json(lineage, bundle, signed_by))
    for name in (*written, CARD, LINEAGE, *tasks):
        text = bundle[name].source
        if isinstance(text, bytes) and (what := private_part(text.decode(errors="replace"))):
            hint = "look for it in the experiment's names, data names and tags"
            raise ConfigError(Problem(f"would publish {what}", name, hint=hint))
    if key is not None:
        from titanflow.publish.signing.signature import sign

        name = published_name(candidate.settings, lineage.experiment)
        bundle[SIGNATURE] = bytes_entry(sign(name, file_digests(bundle), key))
    return bundle


def to_folder(candidate: Candidate, run: StageRun) -> PublishResult:
    settings = candidate.settings
    folder = expanded(settings.folder) if settings.folder else run.folder / "model"
    lineage = candidate.ask_gate(last_in_folder(folder, candidate.exported))
    result = PublishResult(
        stage=run.stage,
        target="folder",
        location=str(folder),
        tag=tag_of(settings, run.experiment, run.run),
        gate=lineage.gate,
        status="held back",
    )
    if lineage.is_held_back:
        return result
    made = make_files(run, settings, lineage)
    bundle = build_bundle(candidate, replace(lineage, gguf=made.proofs), made.entries)
    if settings.dry_run:
        preview_folder(bundle, folder).log(bundle, log)
    else:
        changed = write_folder(bundle, folder)
        log.info("published %d files to %s%s", len(bundle), folder, "" if changed else " (unchanged)")
    status = "dry run" if settings.dry_run else "published"
    return result.model_copy(update={"status": status, "files": file_digests(bundle), "gguf": made.proofs})


def to_hub(candidate: Candidate, run: StageRun) -> PublishResult:
    """Pushes the model to the Hub that ``HF_ENDPOINT`` names: one commit and a tag, or a pull request."""
    from titanflow.publish.hub.repository import Release, Repository
    from titanflow.publish.hub.retry import Caller

    settings = candidate.settings
    endpoint, token, repo_id = hub_endpoint(), hub_token(), settings.repo_id or ""
    repository = Repository(hub_client(endpoint, token), repo_id, Caller(repo_id, token))
    tag = "" if settings.pull_request else tag_of(settings, run.experiment, run.run)
    location = f"{endpoint}/{repo_id}/tree/{tag or settings.revision}"
    result = PublishResult(
        stage=run.stage, target="hub", location=location, repo_id=repo_id, tag=tag, status="held back"
    )
    message = settings.commit_message or f"{run.experiment}, run {run.run}: {settings.model}"
    release = Release({}, settings.revision, message, settings.private, run.folder / DOWNLOADED, tag)
    for _ in range(DECISIONS):
        last = last_on_hub(repository, settings.revision, tag, candidate.exported)
        lineage = candidate.ask_gate(last)
        result = result.model_copy(update={"gate": lineage.gate})
        if lineage.is_held_back:
            return result
        made = make_files(run, settings, lineage)
        result = result.model_copy(update={"gguf": made.proofs})
        bundle = build_bundle(candidate, replace(lineage, gguf=made.proofs), made.entries)
        release = replace(release, bundle=bundle, ask=unless_replaced(last))
        try:
            return send(release, repository, result, settings.dry_run)
        except PublishedMeanwhileError:
            log.warning("another model was published to %s meanwhile: the gate is asked again", repo_id)
    raise HubError(f"Others keep publishing to {repo_id}. Run this stage again when they have stopped.")


def unless_replaced(last: Published | None) -> Callable[[str | None], None]:
    """A check that a push calls with the last published commit before it replaces anything.

    If the gate compared with another commit, the check raises :class:`PublishedMeanwhileError`.
    """

    def ask(commit: str | None) -> None:
        if commit != (last.name if last is not None else None):
            raise PublishedMeanwhileError(commit)

    return ask


def send(release: Release, repository: Repository, result: PublishResult, dry_run: bool) -> PublishResult:
    """One push, a pull request if the release has no tag, or a dry run."""
    from titanflow.publish.hub.push import open_pull_request, preview, push

    result = result.model_copy(update={"files": file_digests(release.bundle)})
    if dry_run:
        preview(release, repository)
        return result.model_copy(update={"status": "dry run"})
    pushed = push(release, repository) if release.tag else open_pull_request(release, repository)
    update = {"status": "published", "commit": pushed.commit, "pull_request": pushed.pull_request}
    if pushed.pull_request:
        update |= {"status": "proposed", "location": pushed.pull_request}
    return result.model_copy(update=update)


def file_digests(bundle: Bundle) -> dict[str, str]:
    return {name: entry.sha256 for name, entry in sorted(bundle.items())}


def main(argv: list[str] | None = None) -> int:
    """Publishes what a ``run.yaml`` says; writes ``result.json`` or ``error.json`` beside it."""
    log_to_stderr()
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) != 1 or not Path(arguments[0]).is_file():
        print("usage: python -m titanflow.publish.publish <run.yaml>", file=sys.stderr)
        return 2
    end_with_torchrun()
    forget_ranks()
    run = StageRun.read(Path(arguments[0]))
    (run.folder / ERROR_FILE).unlink(missing_ok=True)
    try:
        write_result(run.folder, publish(run))
    except Exception as error:
        return record_failure(run.folder, error)
    return 0


if __name__ == "__main__":
    sys.exit(main())

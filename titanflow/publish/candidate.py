"""A model that is about to be published, and the gate that it meets."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from titanflow.common.errors import ConfigError, Problem
from titanflow.config.keys.after_training import Publish
from titanflow.publish.bundle import Bundle
from titanflow.publish.gate.figures import figures
from titanflow.publish.gate.gate import decide
from titanflow.publish.gate.published import Published, mapping
from titanflow.publish.gate.samples import Samples, read_samples
from titanflow.publish.lineage import EvaluatedStage, Lineage
from titanflow.run.results import GateDecision

log = logging.getLogger("titanflow.publish.publish")


class PublishedMeanwhileError(Exception):
    """Another model was published since the gate decided: ask the gate again."""


@dataclass(frozen=True)
class Candidate:
    """One of a run's models: its settings, its lineage, its exported files and its score on each sample."""

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
            raise ConfigError(Problem("found a gate, and nothing was evaluated", "publish.gate", hint=hint))
        return decide(gate, evaluation.result, evaluation.model, self.samples, last)


def evaluated_samples(evaluation: EvaluatedStage | None) -> Samples | None:
    """The model's score on each sample; None without an evaluation, or if it kept no samples."""
    if evaluation is None:
        return None
    return read_samples(evaluation.folder, evaluation.model, evaluation.result, evaluation.run.config)


def unless_replaced(last: Published | None) -> Callable[[str | None], None]:
    """A check that a push calls with the last published commit before it replaces anything.

    If the gate compared with another commit, the check raises :class:`PublishedMeanwhileError`.
    """

    def ask(commit: str | None) -> None:
        if commit != (last.name if last is not None else None):
            raise PublishedMeanwhileError(commit)

    return ask

"""A model that is about to be published, and the gate that it meets."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from titanflow.common.errors import ConfigError, Problem
from titanflow.config.keys.after_training import Publish
from titanflow.publish.bundle import Bundle
from titanflow.publish.gate.figures import figures
from titanflow.publish.gate.gate import decide, is_set
from titanflow.publish.gate.published import Published, mapping
from titanflow.publish.gate.samples import Samples, read_samples
from titanflow.publish.lineage import Lineage
from titanflow.run.contract import StageRun
from titanflow.run.results import GateDecision

log = logging.getLogger("titanflow.publish.publish")


class PublishedMeanwhileError(Exception):
    """Another model was published since the gate decided: it has to be asked again."""


@dataclass(frozen=True)
class Candidate:
    """One of a run's models: what leads to it, its exported files, and what it scored at each sample."""

    settings: Publish
    lineage: Lineage
    exported: Bundle
    samples: Samples | None

    def ask_gate(self, last: Published | None) -> Lineage:
        """The lineage with the gate's decision and with what the model would replace.

        What is published already keeps the decision by which it was: publishing it again changes nothing.

        Raises:
            ConfigError: the gate asks for what the evaluation doesn't have.
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
        """What the gate says; None where it asks for nothing.

        Raises:
            ConfigError: it asks for what the evaluation doesn't have.
        """
        gate, lineage = self.settings.gate, self.lineage
        if not is_set(gate):
            return None
        if lineage.evaluation is None:
            hint = "add an evaluate module, or leave the gate out"
            raise ConfigError(Problem("found a gate, and nothing was evaluated", "publish.gate", hint=hint))
        return decide(gate, lineage.evaluation, lineage.evaluated_as, self.samples, last)


def evaluated_samples(run: StageRun, lineage: Lineage) -> Samples | None:
    """What the model scored at each sample; None where it wasn't evaluated or no samples were kept."""
    if lineage.evaluation is None:
        return None
    folder = run.stages["evaluate"]
    evaluated = StageRun.of(folder)
    config = evaluated.config if evaluated is not None else None
    return read_samples(folder, lineage.evaluated_as, lineage.evaluation, config)


def unless_replaced(last: Published | None) -> Callable[[str | None], None]:
    """For a push: called with the commit that is published last, before anything takes its place.

    It raises :class:`PublishedMeanwhileError` where that isn't the one that the gate compared with.
    """

    def ask(commit: str | None) -> None:
        if commit != (last.name if last is not None else None):
            raise PublishedMeanwhileError(commit)

    return ask

from pathlib import Path

import pytest
from finished_run import evaluated_stage
from finished_stage import evaluate_result

from titanflow.common.errors import ConfigError
from titanflow.config.keys.after_training import Gate, Publish
from titanflow.publish.gate.published import Published
from titanflow.publish.lineage import Lineage
from titanflow.publish.publish import Candidate, PublishedMeanwhileError, unless_replaced
from titanflow.runs.results import EvaluateResult, GateDecision

SCORES = {"sft": {"kind": {"acc": 0.7}}}
EVALUATION = evaluate_result(scores=SCORES, higher_is_better={"kind": {"acc": True}})
RECORD = {"experiment": "stdlib", "run": "before", "model": "sft"}


def candidate(gate: Gate, evaluation: EvaluateResult | None = EVALUATION) -> Candidate:
    stage = evaluated_stage(evaluation) if evaluation else None
    return Candidate(
        Publish(gate=gate), Lineage("stdlib", "now", "sft", Path("export"), (), evaluation=stage), {}, None
    )


def test_without_a_gate_nothing_is_decided_and_what_was_there_is_noted() -> None:
    met = candidate(Gate(), evaluation=None).ask_gate(Published("c0ffee", record=RECORD))
    assert (met.gate, met.is_held_back) == (None, False)
    assert met.last is not None
    assert (met.last["name"], met.last["run"]) == ("c0ffee", "before")
    assert candidate(Gate()).ask_gate(None).last is None


@pytest.mark.parametrize(("bound", "held_back"), [(0.6, False), (0.8, True)])
def test_the_decision_goes_with_the_lineage(bound: float, held_back: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    met = candidate(Gate(thresholds={"kind/acc": bound})).ask_gate(None)
    assert met.is_held_back is held_back
    assert f"gate: kind/acc 0.7, the threshold is {bound}: {'not passed' if held_back else 'passed'}" in caplog.messages


def test_what_is_published_already_is_not_asked_about() -> None:
    decision = GateDecision(passed=True, reason="it was better")
    record = RECORD | {"gate": decision.model_dump(), "last": {"name": "decaf"}}
    met = candidate(Gate(thresholds={"kind/acc": 0.9})).ask_gate(Published("c0ffee", is_this=True, record=record))
    assert (met.gate, met.last, met.is_held_back) == (decision, {"name": "decaf"}, False)
    assert candidate(Gate()).ask_gate(Published("c0ffee", is_this=True, record=RECORD)).last is None


def test_a_gate_without_an_evaluation() -> None:
    with pytest.raises(ConfigError, match="found a gate, and nothing was evaluated"):
        candidate(Gate(better_than_last=True), evaluation=None).ask_gate(None)


def test_a_push_is_stopped_where_another_model_stands_there_now() -> None:
    unless_replaced(None)(None)
    unless_replaced(Published("c0ffee"))("c0ffee")
    for last, found in ((None, "c0ffee"), (Published("c0ffee"), None), (Published("c0ffee"), "decaf")):
        with pytest.raises(PublishedMeanwhileError):
            unless_replaced(last)(found)

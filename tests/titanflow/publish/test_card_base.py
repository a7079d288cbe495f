"""A card says who pretrained its model: this run, or whoever made the base that a fine-tuning began with."""

import pytest
from finished_run import FinishedRun, write_export
from huggingface_hub import ModelCard

from titanflow.common.digests import folder_digests
from titanflow.config.keys.after_training import Publish
from titanflow.publish.bundle import from_export
from titanflow.publish.card.card import model_card
from titanflow.publish.lineage import read_lineage
from titanflow.runs.results import InheritanceRow

WEIGHTS = InheritanceRow(key="weights", how="inherited", base="their-model", here="their-model", origin="their-model")


def opening(finished: FinishedRun, model: str = "sft") -> tuple[str, str | None]:
    """The card's first sentences, and the base that a Hub shows."""
    lineage = read_lineage(finished.to_publish(), model)
    card = ModelCard(model_card(lineage, Publish(), from_export(finished.export)).decode())
    text = card.text.partition("A llama3 language model")[2].partition("##")[0]
    return " ".join(text.split()), card.data.base_model


def test_a_run_that_pretrains_says_so(finished: FinishedRun) -> None:
    text, base = opening(finished)
    assert "pretrained and then fine-tuned on conversations by" in text
    assert "began from" not in text
    assert base is None


def test_preferences_are_named_behind_the_conversations(finished: FinishedRun) -> None:
    export = write_export(finished.root / "prefer" / "export")
    finished.train("prefer")
    finished.evaluate(digests={"prefer": folder_digests(export)}, folders={"prefer": export}, scores={"prefer": {}})
    text, _ = opening(finished, "prefer")
    assert "pretrained and then fine-tuned on conversations and then on pairs of answers by" in text


@pytest.mark.parametrize("repository", ["", "owner/their-model"])
def test_a_run_that_only_fine_tunes_names_its_base(finished: FinishedRun, repository: str) -> None:
    finished.train("sft", inheritance=[WEIGHTS], base_model=repository)
    del finished.stages["pretrain"]
    text, base = opening(finished)
    assert "parameters, fine-tuned on conversations by" in text
    assert "pretrained" not in text
    assert f"which began from `{repository or 'their-model'}`." in text
    assert base == (repository or None)


def test_a_pretraining_that_went_on_from_a_repository_is_the_base_of_what_was_fine_tuned(finished: FinishedRun) -> None:
    finished.train("pretrain", base_model="owner/their-model")
    text, base = opening(finished)
    assert "which began from `owner/their-model`." in text
    assert base == "owner/their-model"

"""What the card says of the licences of the data: what somebody stated, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
from finished_run import FinishedRun
from tiny_experiment import write_tiny_experiment

from titanflow.common.errors import ConfigError
from titanflow.config.keys.licenses import is_license, is_link
from titanflow.planning.data_source import unstated_licenses
from titanflow.planning.plan import make_plan
from titanflow.publish.card.data_licenses import license_text
from titanflow.publish.publish import publish
from titanflow.runs.contract import DataOrigin, StageRun


def origin(**fields: Any) -> DataOrigin:
    return DataOrigin(**{"stage": "sft", "name": "chats", **fields})


def row(card: str, name: str) -> list[str]:
    """The cells of a source's row in the table of sources and licences."""
    table = card.partition("### Sources and licences")[2].partition("## Lineage")[0]
    (found,) = [line for line in table.splitlines() if f" {name} " in line]
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_the_card_has_a_row_for_each_source(finished: FinishedRun) -> None:
    members = {name: finished.root / name for name in ("essays", "posts")}
    datasets = {str(finished.root / "mixed"): {"mixture": {"members": {k: str(v) for k, v in members.items()}}}}
    datasets |= {str(folder): {"name": name, "documents": 1200} for name, folder in members.items()}
    (finished.root / "prepare").mkdir()
    (finished.root / "prepare" / "result.json").write_text(json.dumps({"datasets": datasets}))
    pretrain = finished.stages["pretrain"]
    trained = StageRun.read(pretrain / "run.yaml")
    trained.data.train = finished.root / "mixed"
    trained.write()
    shares = [{"essays": 0.5, "posts": 0.5}, {"essays": 0.625, "posts": 0.375}]
    records = [{"step": step, "loss": 1.0, "tokens": 8, "shares": one} for step, one in enumerate(shares, 1)]
    (pretrain / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    run = finished.to_publish(license="mit")
    run.trained_on = [
        origin(stage="pretrain", name="essays", member="essays", license="CC-BY-4.0", link="https://e.org/a"),
        origin(stage="pretrain", name="posts", member="posts"),
        origin(name="mine|<b>", license="other"),
    ]
    card = Path(publish(run).location, "README.md").read_text()
    assert row(card, "essays") == ["pretrain", "essays", "<https://e.org/a>", "1,200", "62.5%", "CC-BY-4.0"]
    assert row(card, "posts") == ["pretrain", "posts", "", "1,200", "37.5%", "not stated"]
    assert "| sft | mine&#124;&#60;b&#62; |" in card
    assert "\nlicense: mit\n" in card, "the model's own licence is the publisher's to state"


def test_without_known_sources_there_is_no_table(finished: FinishedRun) -> None:
    assert "Sources and licences" not in Path(publish(finished.to_publish()).location, "README.md").read_text()


@pytest.mark.parametrize(
    ("front_matter", "says"),
    [
        ("license: cc-by-sa-3.0", "cc-by-sa-3.0, as the dataset's card says"),
        ("license: [mit, cc0-1.0]", "mit, cc0-1.0, as the dataset's card says"),
        ("license: other\nlicense_name: ours-1.0", "ours-1.0, as the dataset's card says"),
        ("language: en", "not stated"),
        ("license: [", "not stated"),
    ],
)
def test_a_datasets_own_card_is_read_where_it_lies_here(tmp_path: Path, front_matter: str, says: str) -> None:
    (tmp_path / "README.md").write_text(f"---\n{front_matter}\n---\n# Data\n")
    assert license_text(origin(dataset=str(tmp_path))) == says
    assert license_text(origin(dataset=str(tmp_path), license="MIT")) == "MIT", "the config's word comes first"


def test_a_hub_datasets_card_is_read_from_the_cache_and_never_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("it was fetched"))
    asked = origin(dataset="Salesforce/wikitext")
    assert license_text(asked) == "not stated"
    repository = tmp_path / "datasets--Salesforce--wikitext"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "README.md").write_text("---\nlicense: [cc-by-sa-3.0, gfdl]\n---\n")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    assert license_text(asked) == "cc-by-sa-3.0, gfdl, as the dataset's card says"
    assert license_text(origin(dataset="Salesforce/wikitext", revision="v2")) == "not stated"


def test_a_licence_is_an_identifier_of_spdx_or_of_the_hub() -> None:
    for text in ("cc-by-4.0", "CC-BY-4.0", "other", "odbl", "MIT OR Apache-2.0", "Python-2.0.1", "llama3"):
        assert is_license(text), text
    for text in ("", "free", "CC BY 4.0", "GPLv3", "all rights reserved"):
        assert not is_license(text), text
    assert is_link("https://example.org/a b") is False
    assert is_link("https://example.org/a")


def test_a_plan_hands_the_stated_licences_to_the_publishing_and_prepares_nothing_anew(tmp_path: Path) -> None:
    configs = write_tiny_experiment(tmp_path)
    before = make_plan("tiny", configs, runs_here=False)
    settings = ["pretrain.data.license=CC-BY-4.0", "pretrain.data.link=https://example.org"]
    after = make_plan("tiny", configs, overrides=settings, runs_here=False)
    fingerprints = [{plan.stage: plan.run.fingerprint for plan in one.stages} for one in (before, after)]
    assert [stage for stage in fingerprints[0] if fingerprints[0][stage] != fingerprints[1][stage]] == ["publish"]
    (publishing,) = [plan.run for plan in after.stages if plan.stage == "publish"]
    assert [(one.stage, one.license) for one in publishing.trained_on] == [("pretrain", "CC-BY-4.0"), ("sft", "")]
    publishing.config |= {"target": "hub"}
    (warning,) = unstated_licenses(publishing)
    assert f'of the data {publishing.trained_on[1].name} "not stated"' in warning


@pytest.mark.parametrize(
    ("setting", "says"),
    [("license=free", r"pretrain\.data\.license: found 'free'"), ("link=example", r"pretrain\.data\.link: found 'exa")],
)
def test_a_licence_that_nobody_knows_is_refused(tmp_path: Path, setting: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make_plan("tiny", write_tiny_experiment(tmp_path), overrides=[f"pretrain.data.{setting}"], runs_here=False)

import re
from pathlib import Path

from titan.tracking.measures.registry import MEASURES
from titan.tracking.metric_names import AXIS, SECTIONS, TRAINING, named, named_scores, rows

PAGE = Path(__file__).parents[3] / "docs" / "logging.md"
RECORD = {
    "step": 10,
    "loss": 2.0,
    "perplexity": 7.4,
    "max_loss": 2.5,
    "learning_rate": 1e-3,
    "grad_norm": 0.5,
    "tokens": 640,
    "tokens_per_second": 64.0,
    "trained_tokens_per_second": 16.0,
    "mfu": 40.0,
    "shares": {"wiki": 0.25},
    "router": {"layer_1/entropy": 0.5, "entropy": 0.5},
    "seconds": 10.0,
}
MEASURED = {section: dict.fromkeys(file.METRICS, 1.0) for section, file in MEASURES.items()}


def pattern(name):
    return re.sub("<[^>]*>", "[^/]+", name)


def test_every_name_is_in_the_table_and_every_row_of_the_table_has_a_name():
    names = named(RECORD | MEASURED) | named(
        {"step": 10, "validation_loss": 1.0, "validation_perplexity": 2.7, "tokens": 640}
    )
    for metric in TRAINING:
        assert any(re.fullmatch(pattern(metric.name), name) for name in names), metric.name
    for name in names:
        assert any(re.fullmatch(pattern(metric.name), name) for metric in TRAINING), name
        assert name == AXIS or name.split("/")[0] in SECTIONS
    assert names["router/layer_1/entropy"] == 0.5
    assert names["train/share/wiki"] == 0.25


def test_no_measure_takes_the_place_of_another_value():
    taken = {*RECORD, "validation_loss", "validation_perplexity", "train", "val", "eval"}
    assert MEASURES.keys() & taken == set()


def test_a_validation_shares_the_row_of_its_step():
    merged = rows([RECORD, {"step": 10, "validation_loss": 1.0, "tokens": 640}, {"step": 20, "loss": 1.5}])
    assert list(merged) == [10, 20]
    assert (merged[10]["train/loss"], merged[10]["val/loss"]) == (2.0, 1.0)


def test_scores_are_named_by_model_task_and_metric():
    assert named_scores({"sft": {"kind": {"acc": 0.5}}}) == {"eval/sft/kind/acc": 0.5}


def test_the_page_has_exactly_these_names_units_and_meanings():
    tables = [part for part in PAGE.read_text().split("\n\n") if part.startswith("| name | unit | what it is |")]
    table = re.findall(r"^\| `([^`]+)` \| (.*?) \| (.*) \|$", "\n".join(tables), re.MULTILINE)
    of_training = [row for row in table if not row[0].startswith("eval/")]
    assert of_training == [(metric.name, metric.unit, metric.meaning) for metric in TRAINING]
    assert len(table) == len(of_training) + 1

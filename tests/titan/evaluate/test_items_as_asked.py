"""The wording of lm-eval's items: as the model is asked, as the data has it, with the gold answer."""

import json
from pathlib import Path
from typing import Any

import pytest

from titan.evaluate.items import task_item
from titanflow.data.held_out.leaked_items import Item

QUESTION = "Which of the two is it, then?"


@pytest.mark.parametrize(
    ("config", "document", "expected"),
    [
        (
            {"output_type": "multiple_choice", "doc_to_text": "Q: {{q}}\nA:", "doc_to_choice": ["x", "y"]}
            | {"doc_to_target": "{{gold}}"},
            {"q": QUESTION, "gold": 1},
            Item((f"Q: {QUESTION}\nA:", QUESTION), ("y",)),
        ),
        (
            {"output_type": "multiple_choice", "doc_to_text": "{{q}}", "doc_to_choice": ["x", "y"]}
            | {"doc_to_target": "{{gold}}"},
            {"q": "What is it that", "gold": 0},
            Item(("What is it that", "What is it that"), ("x",)),
        ),
        (
            {"output_type": "generate_until", "doc_to_text": "What is the capital of {{land}}?"}
            | {"doc_to_target": "{{of}}"},
            {"land": "France", "of": "Paris"},
            Item(("What is the capital of France?",), ("Paris",)),
        ),
        (
            {"output_type": "multiple_choice", "doc_to_text": "{{q}}\nA. {{c[0]}}\nB. {{c[1]}}\nAnswer:"}
            | {"doc_to_choice": ["A", "B"], "doc_to_target": "{{gold}}"},
            {"q": "Who was Euler?", "c": ["A mathematician", "A poet"], "gold": 0},
            Item(
                ("Who was Euler?\nA. A mathematician\nB. A poet\nAnswer:", "Who was Euler?"), ("A", "A mathematician")
            ),
        ),
        (
            {"output_type": "multiple_choice", "doc_to_text": "{{q}}", "doc_to_choice": ["A", "B"]}
            | {"doc_to_target": "{{gold}}"},
            {"q": QUESTION, "c": ["this", "that"], "gold": "B"},
            Item((QUESTION, QUESTION), ("B", "that")),
        ),
        (
            {"output_type": "generate_until", "doc_to_text": "{{q}}", "doc_to_choice": ["yes", "no"]}
            | {"doc_to_target": "{{gold}}"},
            {"q": QUESTION, "gold": 1},
            Item((QUESTION, QUESTION), ("no",)),
        ),
        (
            {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}"},
            {"text": "Some text."},
            Item(("Some text.",)),
        ),
        (
            {"output_type": "loglikelihood", "doc_to_text": "", "doc_to_target": "{{text}}"},
            {"text": "Some text."},
            Item(("Some text.",)),
        ),
        (
            {"output_type": "multiple_choice", "doc_to_text": "{{right}}", "doc_to_choice": "{{before}}"}
            | {"doc_to_target": "{{after}}"},
            {"right": 1, "before": ["The cat, so the dog", "The cat, so the mouse"], "after": "ran away."},
            Item(("The cat, so the mouse ran away.",)),
        ),
    ],
)
def test_an_item_is_its_question_and_gold_answer(
    config: dict[str, Any], document: dict[str, Any], expected: Item, tmp_path: Path
) -> None:
    from lm_eval.api.task import ConfigurableTask

    path = tmp_path / "items.jsonl"
    path.write_text(json.dumps(document) + "\n")
    files = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(path)}}, "test_split": "test"}
    task = ConfigurableTask(config={"task": "tiny", **files, **config})

    assert task_item(task, document) == expected

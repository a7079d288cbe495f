"""Evaluation items of one's own: prepared under their names, known by content and name, read to their end first."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from titanflow.common.errors import DataError
from titanflow.config.keys.training import Data
from titanflow.data import prepare
from titanflow.data.fingerprints import data_fingerprint, prepared_folder
from titanflow.data.held_out.eval_items import check_items, item_names, named_files
from titanflow.runs.contract import StageRun


@pytest.fixture
def items(tmp_path: Path) -> Path:
    folder = tmp_path / "items"
    (folder / "hard").mkdir(parents=True)
    (folder / "colours.jsonl").write_text('{"question": "sky?", "answer": 0}\n{"question": "grass?", "answer": 1}\n')
    (folder / "hard" / "colours.jsonl").write_text('{"question": "sea?", "answer": 0}\n')
    return folder


def evals(path: Any) -> dict[str, Any]:
    return {"name": "mine", "kind": "evals", "path": path}


def test_items_lie_in_the_prepared_folder_by_their_names(items: Path, tmp_path: Path) -> None:
    data = evals(str(items))
    folder = prepared_folder(tmp_path, data, data_fingerprint(data))
    planned = {"folder": str(folder), "kind": "evals", "data": data, "fingerprint": "f"}
    config = {"workspace": str(tmp_path), "tokenizer": None, "datasets": [planned]}
    run = StageRun(stage="prepare", experiment="e", run="r", folder=tmp_path / "prepare", config=config)
    result = prepare.prepare(run)
    assert result.datasets[str(folder)]["items"] == ["colours.jsonl", "hard/colours.jsonl"]
    for name in item_names(data):
        assert (folder / name).read_bytes() == (items / name).read_bytes()


def test_a_file_is_known_by_its_own_name(items: Path) -> None:
    assert list(named_files(str(items / "hard" / "colours.jsonl"))) == ["colours.jsonl"]
    assert list(named_files(str(items / "hard" / "*.jsonl"))) == ["colours.jsonl"]


def test_the_built_in_items_are_those_that_are_written(tmp_path: Path) -> None:
    from titanflow.data.stdlib import evals as stdlib_evals

    stdlib_evals.write_items(tmp_path)
    assert sorted(item_names({"kind": "evals", "source": "stdlib_evals"})) == sorted(
        path.name for path in tmp_path.iterdir()
    )


def test_other_items_or_other_names_are_other_data(items: Path) -> None:
    first = data_fingerprint(evals(str(items)))
    (items / "hard" / "colours.jsonl").rename(items / "hard" / "others.jsonl")
    renamed = data_fingerprint(evals(str(items)))
    (items / "colours.jsonl").write_text('{"question": "sky?", "answer": 1}\n')
    assert len({first, renamed, data_fingerprint(evals(str(items)))}) == 3


def test_two_files_of_one_name_are_refused(items: Path) -> None:
    with pytest.raises(DataError, match=r"would both be colours\.jsonl"):
        named_files([str(items / "colours.jsonl"), str(items / "hard")])


def test_a_name_that_the_preparation_needs_is_refused(items: Path) -> None:
    (items / "dataset.json").write_text("[]")
    with pytest.raises(DataError, match="call it otherwise"):
        named_files(str(items))


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.jsonl", '{"q": 1}\n{"q": 2\n', "a.jsonl:2: data.path: not JSON"),
        ("a.jsonl", '{"q": 1}\n[1, 2]\n', "a.jsonl:2: data.path: found"),
        ("a.csv", "q,a\n1,2\n1,2,3\n", "a.csv:3"),
        ("a.json", "[{]", "a.json:1"),
    ],
)
def test_a_row_that_is_no_item_is_found_before_a_model_is_asked(items: Path, name: str, text: str, says: str) -> None:
    (items / name).write_text(text)
    with pytest.raises(DataError, match=says.replace(".", r"\.")):
        check_items(Data(**evals(str(items))))


def test_a_list_of_items_is_read(items: Path) -> None:
    (items / "list.json").write_text(json.dumps([{"q": 1}, {"q": 2}]))
    check_items(Data(**evals(str(items))))


def test_items_of_every_format_are_read_to_their_end(tmp_path: Path) -> None:
    deep, half = tmp_path / "deep.jsonl", tmp_path / "half.txt.gz"
    deep.write_text('{"a": 1}\n' + "[" * 100_000 + "]" * 100_000 + "\n")
    half.write_bytes(gzip.compress(b"red\n" * 1000)[:-4])
    spoilt = tmp_path / "spoilt.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": [f"{number} " * 20 for number in range(20_000)]}), spoilt)
    raw = bytearray(spoilt.read_bytes())
    raw[1000:1500] = b"?" * 500
    spoilt.write_bytes(raw)
    for file, message in (
        (deep, "2: data.path: not JSON"),
        (half, " data.path: can't be"),
        (spoilt, " data.path: can't"),
    ):
        with pytest.raises(DataError, match=f"^{file}:{message}"):
            check_items(Data(kind="evals", path=str(file)))

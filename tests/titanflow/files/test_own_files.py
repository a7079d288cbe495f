"""Files that the project wrote and reads again: a damaged one is named, whoever reads it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from finished_without_training import finish
from tiny_experiment import write_tiny_experiment

from flows.resume_proof.kill_points import last_step
from tasks.jobs.job import Job
from titanflow.architectures.huggingface import INDEX
from titanflow.common.errors import DataError
from titanflow.data.dataset_info import read_facts, read_info
from titanflow.data.local_copy import COPY_FILE, _fault
from titanflow.data.parts.work import Part
from titanflow.data.prepared import mapped
from titanflow.data.tokenizer.tokenizer import described_tokenizer
from titanflow.files.own_files import parse_yaml, read_mapping, readable
from titanflow.nightly.night import Night
from titanflow.planning.plan import make_plan
from titanflow.publish.bundle import REQUIRED, check_complete
from titanflow.publish.card.training_data import dataset_info, prepared_datasets
from titanflow.publish.gate.samples import lines
from titanflow.publish.gguf import PROOF_FILE, proved
from titanflow.runs.contract import StageRun
from titanflow.runs.errors import StageError
from titanflow.runs.manifest import Manifest
from titanflow.runs.metrics import read_metrics
from titanflow.runs.results import read_result

DAMAGES = {"empty": b"", "cut": b'{"kind": "te', "bytes": b"\xff\xfe\0", "a list": b"[]", "a number": b"3"}
READERS: dict[str, Callable[[Path], Any]] = {
    "dataset.json": lambda path: read_info(path.parent),
    "items/dataset.json": lambda path: read_facts(path.parent),
    "card/dataset.json": lambda path: dataset_info(path.parent, {}),
    "run.yaml": StageRun.read,
    "result.json": lambda path: read_result(path.parent),
    "prepare/result.json": lambda path: prepared_datasets(path.parents[1]),
    "manifest.json": lambda path: Manifest.open(path.parent),
    "error.json": lambda path: StageError.read(path.parent),
    "night.json": lambda path: Night.read(path.parent),
    "job.json": lambda path: Job.of(path.parent),
    f"export/{INDEX}": lambda path: check_complete(path.parent, [*REQUIRED, INDEX]),
}


def written(folder: Path, name: str, damage: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(DAMAGES[damage])
    return path


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, name: str, damage: str) -> None:
    path = written(tmp_path, name, damage)
    with pytest.raises(DataError, match=rf"^{path}: (can't be read: |another version of titanflow wrote it).+\n    \S"):
        READERS[name](path)


@pytest.mark.parametrize("damage", ["cut", "bytes", "a list", "a number"])
def test_a_damaged_line_is_refused_with_its_file(tmp_path: Path, damage: str) -> None:
    path = written(tmp_path, "samples.jsonl", damage)
    with pytest.raises(DataError, match=f"^{path}: can't be read: "):
        list(lines(path))


def test_a_damaged_part_is_refused_with_its_file(tmp_path: Path) -> None:
    path = written(tmp_path, "0.json", "cut")
    with pytest.raises(DataError, match=f"^{path}: can't be read: .*\n    remove the folder {tmp_path}"):
        print(Part(tmp_path / "0.npz").noted)


def test_a_result_beside_a_damaged_run_yaml_names_that(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("{}")
    path = written(tmp_path, "run.yaml", "bytes")
    with pytest.raises(DataError, match=f"^{path}: can't be read"):
        read_result(tmp_path)


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_can_be_made_again_counts_as_missing(tmp_path: Path, damage: str) -> None:
    written(tmp_path, PROOF_FILE, damage)
    assert proved(tmp_path, "a digest") is None
    copy = written(tmp_path / "copy", COPY_FILE, damage).parent
    assert _fault(copy, {}).startswith("can't be read")


@pytest.mark.parametrize("line", ["3", "[]", '{"loss": ', '{"step": null}'])
def test_a_damaged_line_of_metrics_is_passed_over(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 7}}\n{line}\n')
    assert [record for record in read_metrics(path) if record != {"step": None}] == [{"step": 7}]
    assert last_step(path) == 7


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_plan_names_damaged_rows(tmp_path: Path, damage: str) -> None:
    configs = write_tiny_experiment(tmp_path)
    data = next(stage.run.data.train for stage in finish(configs, upto="pretrain").stages if stage.stage == "sft")
    assert data is not None
    path = written(data, "dataset.json", damage)
    with pytest.raises(DataError, match=f"^{path}: can't be read.*\n    remove the folder {data}"):
        make_plan("tiny", configs).as_json()


@pytest.mark.parametrize("damage", ["empty", "cut"])
def test_a_damaged_array_or_tokenizer_is_named(tmp_path: Path, damage: str) -> None:
    path = written(tmp_path, "tokens.npy", damage)
    with pytest.raises(DataError, match=f"^{path}: can't be read: .*\n    remove the folder {tmp_path}"):
        mapped(tmp_path, "tokens.npy")
    path = written(tmp_path, "tokenizer.json", damage)
    with pytest.raises(DataError, match=f"^{path}: can't be read: "):
        described_tokenizer(tmp_path)


def test_what_is_missing_in_a_file_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("{}")
    with (
        pytest.raises(DataError, match=f"^{path}: can't be read: it has no 'step'\n    a hint"),
        readable(path, "a hint"),
    ):
        read_mapping(path)["step"]
    with pytest.raises(DataError, match="can't be read: No such file or directory"):
        read_mapping(tmp_path / "gone.json")


def test_what_was_written_is_read_as_by_pythons_own_loader() -> None:
    values = {"a": [1, 2.5, True, None, "1e-4", "no", "2026-11-30", "", "ü – \\ \n", "a: b"], "1": {"x": [[], {}]}}
    text = yaml.safe_dump(values, sort_keys=False, width=110)
    assert parse_yaml(text) == yaml.safe_load(text) == values

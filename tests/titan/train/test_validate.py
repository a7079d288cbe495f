"""Validation against a direct computation, with the real model and no trainer around it."""

import copy
import logging
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_exports import model_at
from tiny_stages import MODEL, SEQ_LEN, write_chat_rows
from torch.nn.functional import cross_entropy
from torchtitan.components.loss import cross_entropy_loss
from torchtitan.config import JobConfig

from titan.models.documents import keep_documents_apart
from titan.models.overrides import override_model_args
from titan.models.registry import model_args_from, train_spec
from titan.train.validate import StageValidator
from titan.weights.native import load_native
from titanflow.data.prepared import PreparedRows
from titanflow.runs.results import read_result


@pytest.fixture(scope="module")
def model():
    spec = train_spec("llama3")
    args = override_model_args(spec.model_args, "llama3", "debugmodel", {**MODEL, "max_seq_len": SEQ_LEN})["debugmodel"]
    torch.manual_seed(1)
    model = spec.model_cls(args)
    with torch.no_grad():
        model.init_weights()
    return model


class Recorder:
    def __init__(self):
        self.ntokens_since_last_log = 11
        self.time_last_log = 100.0
        self.logged = []

    def log_validation(self, loss, step):
        self.logged.append((step, loss))


def validator(rows, batch, steps=-1, freq=10):
    config = JobConfig()
    config.validation.local_batch_size = batch
    config.validation.steps = steps
    config.validation.freq = freq
    config.training.steps = 25
    return StageValidator(
        rows,
        config,
        dp_world_size=1,
        dp_rank=0,
        tokenizer=None,
        parallel_dims=SimpleNamespace(pp_enabled=False, cp_enabled=False, dp_cp_enabled=False),
        loss_fn=cross_entropy_loss,
        validation_context=nullcontext,
        maybe_enable_amp=nullcontext(),
        metrics_processor=Recorder(),
    )


@torch.no_grad()
def direct_loss(model, rows, count=None):
    total, tokens = 0.0, 0
    for index in range(len(rows) if count is None else count):
        input_ids, labels = (torch.from_numpy(column.copy())[None] for column in rows.row(index)[:2])
        logits = model(input_ids).flatten(0, 1).double()
        total += cross_entropy(logits, labels.flatten(), reduction="sum", ignore_index=-100).item()
        tokens += int((labels != -100).sum())
    return total / tokens


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_the_loss_is_the_mean_over_all_trained_tokens_whatever_the_batch(model, shared_data, batch):
    rows = PreparedRows.open(shared_data / "chats", SEQ_LEN)
    assert validator(rows, batch).mean_loss(model) == pytest.approx(direct_loss(model, rows), rel=1e-6)


def test_steps_bound_what_is_validated(model, shared_data):
    rows = PreparedRows.open(shared_data / "chats", SEQ_LEN)
    expected = direct_loss(model, rows, count=8)
    assert validator(rows, batch=4, steps=2).mean_loss(model) == pytest.approx(expected, rel=1e-6)


class Untrained:
    """Rows of which no token has a label."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def row(self, index):
        row = self.rows.row(index)
        return row._replace(labels=np.full_like(row.labels, -100))


def test_case_30_rows_without_a_label_are_told_and_nothing_is_logged(model, shared_data, caplog):
    one = validator(Untrained(PreparedRows.open(shared_data / "chats", SEQ_LEN)), batch=8)
    with caplog.at_level(logging.WARNING):
        one.validate([model], step=3)
    assert one.metrics_processor.logged == []
    assert "validate step:  3  no loss: not one token of the validation rows has a label" in caplog.text


@pytest.mark.parametrize("batch", [1, 7])
def test_case_25_packed_rows_have_the_loss_of_the_chats_alone(model, shared_data, tmp_path, batch):
    rows = PreparedRows.open(shared_data / "chats", SEQ_LEN)
    packed = PreparedRows.open(write_chat_rows(tmp_path / "packed", 60, seed=2, packed=True), SEQ_LEN)
    assert len(packed) < len(rows)
    keeping = copy.deepcopy(model)
    keep_documents_apart(keeping)
    assert validator(packed, batch).mean_loss(keeping) == pytest.approx(direct_loss(model, rows), rel=1e-6)


def test_training_goes_on_as_if_nothing_had_been(model, shared_data):
    rows = PreparedRows.open(shared_data / "chats", SEQ_LEN)
    one = validator(rows, batch=8)
    model.train()
    one.validate([model], step=3)
    assert model.training
    assert one.metrics_processor.ntokens_since_last_log == 11
    assert one.metrics_processor.time_last_log > 100.0
    assert [step for step, _ in one.metrics_processor.logged] == [3]


def test_the_first_each_nth_and_the_last_step_are_validated(shared_data):
    one = validator(PreparedRows.open(shared_data / "chats", SEQ_LEN), batch=8)
    assert [step for step in range(1, 26) if one.should_validate(step)] == [1, 10, 20, 25]


def test_a_stages_validation_loss_is_that_of_its_checkpoint(uninterrupted):
    result = read_result(uninterrupted.folder)
    args = model_args_from(result.model_name, result.model_args)
    native = load_native(model_at(result.checkpoint, result.model_name, args, positions=SEQ_LEN))
    rows = PreparedRows.open(uninterrupted.data.validation, SEQ_LEN)
    assert result.validation_loss == pytest.approx(direct_loss(native, rows), rel=1e-5)

"""A stage's own ``TrainSpec``: the family's, with this stage's arguments, data, metrics and validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.loss import build_cross_entropy_loss
from torchtitan.components.validate import BaseValidator, build_validator
from torchtitan.config import JobConfig
from torchtitan.hf_datasets.text_datasets import build_text_dataloader
from torchtitan.protocols.train_spec import LossFunctionBuilder, TrainSpec
from torchtitan.tools import utils

from titan.models.overrides import override_model_args
from titan.models.routers import RoutedModel
from titan.tracking.metrics import metrics_builder
from titan.train.chunked_loss import KEY, summed
from titan.train.data_parallel import equal_to_one_process, with_summed_gradients
from titan.train.dataloader import MockRows, PreparedDataLoader, Rows
from titan.train.local_rows import nearest
from titan.train.optimizer.groups import with_parameter_groups
from titan.train.prefer.pair_loss import build_pair_loss
from titan.train.prefer.validate import PairValidator
from titan.train.streaming import WithinDocuments, streamed
from titan.train.validate import StageValidator, TextValidator
from titanflow.architectures.families.registry import ARCHITECTURES, PARAMETER_GROUPS
from titanflow.architectures.new_tokens import tokenizer_size
from titanflow.common.errors import ConfigError, Problem
from titanflow.config.keys.training import names_rows
from titanflow.config.model_args import families_hint
from titanflow.data.mixture import open_rows
from titanflow.data.tokenizer.checks import check_streamed, check_words, loaded_size
from titanflow.runs.contract import StageRun

MOCK_VALIDATION_ROWS = 64


def stage_train_spec(spec: TrainSpec, run: StageRun, job_config: JobConfig, overrides: Mapping[str, Any]) -> TrainSpec:
    """The family's ``spec`` with what this stage replaces; the spec given, and its arguments, stay as they were."""
    model = job_config.model
    try:
        model_args = override_model_args(spec.model_args, model.name, model.flavor, overrides)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        hint = families_hint(error.name) if isinstance(error, AttributeError) and error.name else ""
        raise ConfigError(Problem(f"{type(error).__name__}: {error.args[0]}", key="model", hint=hint)) from error
    vocab_size = getattr(model_args[model.flavor], "vocab_size", 0)
    groups = PARAMETER_GROUPS.get(model.name, {})
    return dataclasses.replace(
        spec,
        model_args=model_args,
        build_tokenizer_fn=spec.build_tokenizer_fn if needs_tokenizer(run, job_config) else None,
        build_dataloader_fn=_dataloader_builder(spec, run, vocab_size),
        build_validator_fn=_validator_builder(spec, run, vocab_size),
        build_metrics_processor_fn=metrics_builder(run),
        build_optimizers_fn=with_parameter_groups(spec.build_optimizers_fn, job_config.optimizer, groups),
        build_loss_fn=with_summed_gradients(_loss_builder(spec, run, job_config)),
        parallelize_fn=equal_to_one_process(spec.parallelize_fn),
    )


def _loss_builder(spec: TrainSpec, run: StageRun, job_config: JobConfig) -> LossFunctionBuilder:
    if run.kind == "prefer":
        return build_pair_loss
    chunks = job_config.training.loss_chunks
    if chunks == 1:
        return spec.build_loss_fn
    if spec.build_loss_fn is not build_cross_entropy_loss:
        found = f"found {chunks}, and {job_config.model.name} has a loss of its own: {spec.build_loss_fn.__name__}"
        raise ConfigError(run.placed([Problem(found, KEY, expected="1")]))
    return lambda job_config, **parts: summed


def describe_model(spec: TrainSpec, job_config: JobConfig) -> tuple[dict[str, Any], int]:
    """The arguments that the model is built with, and how many parameters it has."""
    args = spec.model_args[job_config.model.flavor]
    args.update_from_config(job_config)
    with torch.device("meta"):
        model = spec.model_cls(args)
    values = {key: value for key, value in dataclasses.asdict(args).items() if not key.startswith("_")}
    return values, sum(parameter.numel() for parameter in model.parameters())


def check_model(spec: TrainSpec, run: StageRun, job_config: JobConfig) -> None:
    """Refuses rows longer than the model's positions, and tokens without an embedding.

    torchtitan only warns of the first, and fails in the middle of the second.
    """
    args = spec.model_args[job_config.model.flavor]
    problems = []
    if run.tokenizer is not None and ARCHITECTURES.get(job_config.model.name) == "Qwen2ForCausalLM":
        check_words(run.tokenizer)
    longest, seq_len = getattr(args, "max_seq_len", None), job_config.training.seq_len
    if longest is not None and seq_len > longest:
        problems.append(
            Problem(
                f"found {seq_len}, but the model's max_seq_len is {longest}",
                key="training.seq_len",
                expected=f"at most {longest}",
                hint="shorten the rows, or set model.max_seq_len (and its RoPE scaling) when you pretrain",
            )
        )
    tokens = max(tokenizer_size(run), loaded_size(run.tokenizer))
    vocab_size = getattr(args, "vocab_size", None)
    if vocab_size is not None and tokens > vocab_size:
        problems.append(
            Problem(
                f"{run.tokenizer} has {tokens} tokens, but the model's vocab_size is {vocab_size}",
                key="tokenizer",
                expected=f"at most {vocab_size} tokens",
                hint=f"set model.vocab_size to {tokens} or more, or train a smaller tokenizer",
            )
        )
    if problems:
        raise ConfigError(run.placed(problems))


def needs_tokenizer(run: StageRun, job_config: JobConfig) -> bool:
    """Whether training reads a tokenizer: prepared rows and random tokens need none."""
    return run.tokenizer is not None or not (run.data.train or job_config.training.mock_data)


def _dataloader_builder(spec: TrainSpec, run: StageRun, vocab_size: int) -> Callable[..., BaseDataLoader]:
    def build(dp_world_size: int, dp_rank: int, tokenizer: Any, job_config: JobConfig) -> BaseDataLoader:
        training = job_config.training
        rows: Rows
        if training.mock_data:
            rows = MockRows(vocab_size, training.seq_len)
        elif run.data.train is not None:
            rows = open_rows(nearest(run, run.data.train), training.seq_len)
        else:
            if job_config.data.streaming:
                if run.tokenizer is not None:
                    check_streamed(run.tokenizer)
                job_config = streamed(job_config, job_config.data, "training")
            elif names_rows(run.config.get("data") or {}):
                raise ConfigError(
                    Problem(
                        f"{job_config.data.name or 'the training data'} isn't prepared",
                        key="data",
                        hint="run the prepare step first, or set data.streaming: true",
                    )
                )
            loader = spec.build_dataloader_fn(
                dp_world_size=dp_world_size, dp_rank=dp_rank, tokenizer=tokenizer, job_config=job_config
            )
            is_text = spec.build_dataloader_fn is build_text_dataloader
            return WithinDocuments(loader, tokenizer) if is_text else loader
        return PreparedDataLoader(
            rows,
            local_batch_size=training.local_batch_size,
            global_batch_size=training.global_batch_size,
            rank=dp_rank,
            ranks=dp_world_size,
            seed=job_config.debug.seed or 0,
            skip_rows=training.skip_rows,
            steps=training.steps,
            settings=training.dataloader,
            trim=may_trim(spec, job_config),
            by_length=training.group_by_length,
        )

    return build


def _validator_builder(spec: TrainSpec, run: StageRun, vocab_size: int) -> Callable[..., BaseValidator]:
    def build(job_config: JobConfig, **parts: Any) -> BaseValidator:
        validator = _validator(job_config, **parts)
        if isinstance(validator, StageValidator) and job_config.samples.prompts:
            # It imports transformers, which a training without prompts doesn't need.
            from titan.inference.samples import samples_of

            validator.samples = samples_of(run, job_config)
        return validator

    def _validator(job_config: JobConfig, **parts: Any) -> BaseValidator:
        seq_len = validation_seq_len(run, job_config)
        if run.data.validation is not None:
            rows = open_rows(nearest(run, run.data.validation), seq_len)
            of_kind = PairValidator if run.kind == "prefer" else StageValidator
            return of_kind(rows, job_config, trim=may_trim(spec, job_config), **parts)
        if job_config.training.mock_data:
            return StageValidator(MockRows(vocab_size, seq_len, MOCK_VALIDATION_ROWS), job_config, **parts)
        if job_config.validation_data.streaming:
            job_config = streamed(job_config, job_config.validation_data, "validation")
        elif run.data.train is not None or names_rows(run.config.get("validation_data") or {}):
            raise ConfigError(
                Problem(
                    "validation is on, and there is no prepared validation data",
                    key="validation.enable",
                    hint="give the module validation_data, or set validation.enable: false",
                )
            )
        assert spec.build_validator_fn is not None
        validation = dataclasses.replace(job_config.validation, seq_len=seq_len)
        job_config = dataclasses.replace(job_config, validation=validation)
        if spec.build_validator_fn is build_validator:
            return TextValidator(job_config, **parts)
        return spec.build_validator_fn(job_config=job_config, **parts)

    return build


def may_trim(spec: TrainSpec, job_config: JobConfig) -> bool:
    """Whether batches may differ in width: only on a CPU, where nothing is compiled for one width and no rank waits.

    A routed layer chooses a share of the row's width, which must not depend on the rows beside it.
    """
    if issubclass(spec.model_cls, RoutedModel):
        return False
    parallelism = job_config.parallelism
    shared_rows = parallelism.tensor_parallel_degree * parallelism.context_parallel_degree
    whole_rows = shared_rows * parallelism.pipeline_parallel_degree == 1
    return utils.device_type == "cpu" and whole_rows and not job_config.compile.enable


def validation_seq_len(run: StageRun, job_config: JobConfig) -> int:
    """``validation.seq_len``, refused where longer than the training's rows: the model has no positions for it."""
    if job_config.validation.seq_len > job_config.training.seq_len:
        found, expected = job_config.validation.seq_len, f"at most training.seq_len={job_config.training.seq_len}"
        raise ConfigError(run.placed([Problem(f"found {found}", "validation.seq_len", expected=expected)]))
    return int(job_config.validation.seq_len)

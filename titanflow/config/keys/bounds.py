"""Bounds of numbers that their types don't express: for configs, and for the form in Prefect's UI."""

from __future__ import annotations

from collections.abc import Mapping

from titanflow.config.files.schema import Schema

COUNT = {"minimum": 1}
NATURAL = {"minimum": 0}
POSITIVE = {"exclusiveMinimum": 0}
SHARE = {"minimum": 0, "maximum": 1}
BELOW_ONE = {"minimum": 0, "exclusiveMaximum": 1}
BETWEEN = {"exclusiveMinimum": 0, "exclusiveMaximum": 1}
SEED = {"minimum": 0, "maximum": 2**32 - 1}
"""The seeds that numpy takes."""
TORCH_SEED = {"minimum": 0, "maximum": 2**64 - 1}
OR_ALL = {"minimum": -1}
"""A count; to torchtitan, -1 means all."""
RESAMPLES = {"minimum": 0, "maximum": 1_000_000}
"""More take hours, and change no digit that is shown."""
LAUNCHER = {
    "launcher.nproc_per_node": COUNT,
    "launcher.nnodes": COUNT,
    "launcher.node_rank": NATURAL,
    "launcher.omp_num_threads": COUNT,
    "launcher.slurm.save_seconds": {"minimum": 1, "maximum": 65535},
    "launcher.kubernetes.save_seconds": COUNT,
    "launcher.kubernetes.active_deadline_seconds": COUNT,
    "launcher.kubernetes.run_as_user": NATURAL,
    "launcher.kubernetes.fs_group": NATURAL,
}
PREPARE = {
    f"prepare.{key}": LAUNCHER[key]
    for key in ("launcher.nproc_per_node", "launcher.nnodes", "launcher.slurm.save_seconds")
}
EXPERIMENT: Mapping[str, Mapping[str, float]] = {
    **PREPARE,
    **LAUNCHER,
    "price_per_hour": NATURAL,
    "retries.lost": NATURAL,
    "retries.delay": NATURAL,
    "nightly.keep": NATURAL,
}
"""The experiment's own."""

TRAINING: Mapping[str, Mapping[str, float]] = {
    **LAUNCHER,
    "training.steps": COUNT,
    "training.seq_len": COUNT,
    "training.local_batch_size": COUNT,
    "training.global_batch_size": OR_ALL,
    "training.max_norm": POSITIVE,
    "training.skip_rows": NATURAL,
    "training.ema": BETWEEN,
    "training.loss_chunks": COUNT,
    "training.gc_freq": COUNT,
    **{f"{section}.dataloader.num_workers": NATURAL for section in ("training", "validation")},
    **{f"{section}.dataloader.prefetch_factor": COUNT for section in ("training", "validation")},
    "optimizer.lr": NATURAL,
    "optimizer.beta1": BELOW_ONE,
    "optimizer.beta2": BELOW_ONE,
    "optimizer.eps": NATURAL,
    "optimizer.weight_decay": NATURAL,
    "optimizer.muon_lr": NATURAL,
    "optimizer.muon_momentum": BELOW_ONE,
    "optimizer.muon_ns_steps": {"minimum": 1, "maximum": 99},
    "lr_scheduler.warmup_steps": NATURAL,
    "lr_scheduler.total_steps": COUNT,
    "lr_scheduler.decay_ratio": SHARE,
    "lr_scheduler.min_lr_factor": SHARE,
    "parallelism.expert_parallel_degree": COUNT,
    "parallelism.expert_tensor_parallel_degree": COUNT,
    "parallelism.pipeline_parallel_microbatch_size": COUNT,
    "parallelism.pipeline_parallel_layers_per_stage": COUNT,
    "parallelism.pipeline_parallel_first_stage_less_layers": NATURAL,
    "parallelism.pipeline_parallel_last_stage_less_layers": NATURAL,
    "activation_checkpoint.memory_budget": SHARE,
    "checkpoint.interval": COUNT,
    "checkpoint.keep_latest_k": NATURAL,
    "validation.freq": COUNT,
    "validation.seq_len": COUNT,
    "validation.steps": OR_ALL,
    "validation.local_batch_size": COUNT,
    "metrics.log_freq": COUNT,
    "profiling.profile_freq": COUNT,
    "profiling.profiler_active": COUNT,
    "profiling.profiler_warmup": NATURAL,
    "comm.init_timeout_seconds": COUNT,
    "comm.train_timeout_seconds": COUNT,
    "comm.trace_buf_size": NATURAL,
    "fault_tolerance.group_size": NATURAL,
    "fault_tolerance.replica_id": NATURAL,
    "fault_tolerance.min_replica_size": COUNT,
    "fault_tolerance.process_group_timeout_ms": COUNT,
    "tokenizer.vocab_size": COUNT,
    "debug.seed": TORCH_SEED,
    "chat.proof_rows": NATURAL,
    "lora.rank": NATURAL,
    "lora.alpha": POSITIVE,
    "lora.dropout": BELOW_ONE,
    "prefer.beta": POSITIVE,
    "prefer.label_smoothing": {"minimum": 0, "exclusiveMaximum": 0.5},
    "during.every": COUNT,
    "during.limit": POSITIVE,
    "samples.max_new_tokens": COUNT,
}
EVALUATE: Mapping[str, Mapping[str, float]] = {
    **LAUNCHER,
    "limit": POSITIVE,
    "num_fewshot": NATURAL,
    "batch_size": COUNT,
    "bootstrap_iters": RESAMPLES,
    "examples": NATURAL,
    "seed": SEED,
}

PUBLISH: Mapping[str, Mapping[str, float]] = {"gate.resamples": RESAMPLES}
"""Of confidence and resamples together, see :mod:`titanflow.config.checks.publishing.gate`."""


def bounded(schema: Schema, bounds: Mapping[str, Mapping[str, float]]) -> Schema:
    """A copy of the schema whose numbers have the bounds, by dotted key; a key that it lacks is a ``KeyError``."""
    properties = dict(schema["properties"])
    for key, bound in bounds.items():
        name, _, below = key.partition(".")
        field = properties[name]
        properties[name] = bounded(field, {below: bound}) if below else _bounded_field(field, bound)
    return {**schema, "properties": properties}


def _bounded_field(field: Schema, bound: Mapping[str, float]) -> Schema:
    """The field with the bound; of alternatives only numbers get it."""
    if "anyOf" in field:
        return {**field, "anyOf": [_bounded_field(option, bound) for option in field["anyOf"]]}
    return {**field, **bound} if field.get("type") in ("integer", "number") else field

"""A stage's form of settings: a few of the config's own keys, as pydantic models.

Descriptions, types and bounds come from the config's schema, by which values are checked, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, create_model

from titanflow.config.files.schema import Schema, accepts, describe
from titanflow.config.keys.docs import described_schema
from titanflow.config.module import stage_schema
from titanflow.runs.tracker_record import KEYS as TRACKERS

TRAINING = (
    *("training.steps", "training.seq_len", "training.local_batch_size", "training.global_batch_size"),
    *("training.max_norm", "training.mixed_precision_param", "optimizer.lr", "optimizer.weight_decay"),
    *("lr_scheduler.warmup_steps", "lr_scheduler.decay_type", "lr_scheduler.min_lr_factor"),
    *("checkpoint.interval", "checkpoint.keep_latest_k", "checkpoint.async_mode", "activation_checkpoint.mode"),
    *("validation.enable", "validation.freq", "metrics.log_freq"),
    *(f"metrics.{key}" for key in TRACKERS.values()),
    *("debug.seed", "launcher.nproc_per_node", "launcher.device"),
)
KEYS: Mapping[str, tuple[str, ...]] = {
    "pretrain": TRAINING,
    "sft": (*TRAINING, "lora.rank", "lora.alpha", "lora.dropout", "chat.turns"),
    "evaluate": (
        *("tasks", "num_fewshot", "batch_size", "backend", "seed", "examples", *TRACKERS),
        *("launcher.nproc_per_node", "launcher.device"),
    ),
    "publish": (
        *("target", "repo_id", "private", "tag", "commit_message", "gate.better_than_last", "gate.margin"),
        *("pull_request", "dry_run"),
    ),
}
"""The keys of each stage's form; every other key can be set by name."""
TITLES = {"pretrain": "Pretraining", "sft": "Fine-tuning", "evaluate": "Evaluation", "publish": "Publishing"}


class StageForm(BaseModel):
    """What is set of a stage's config; what isn't stays as the experiment has it."""

    model_config = ConfigDict(extra="forbid")

    def overrides(self, prefix: str = "") -> dict[str, Any]:
        """Dotted key → value of what is set; ``prefix`` goes before each key."""
        found: dict[str, Any] = {}
        for name in sorted(self.model_fields_set):
            value = getattr(self, name)
            if isinstance(value, StageForm):
                found |= value.overrides(f"{prefix}{name}.")
            elif value is not None:
                found[f"{prefix}{name}"] = value
        return found


def stage_form(stage: str) -> type[StageForm]:
    schema = stage_schema(stage, described_schema)
    grouped: dict[str, list[str]] = {}
    for key in KEYS[stage]:
        section, _, name = key.rpartition(".")
        grouped.setdefault(section, []).append(name)
    fields = {name: _field(name, schema["properties"][name]) for name in grouped.pop("", [])}
    for section, names in grouped.items():
        inner = schema["properties"][section]["properties"]
        model = _model(f"{stage}_{section}", section, {name: _field(name, inner[name]) for name in names})
        fields[section] = (model, Field(default_factory=model, title=section))
    return _model(stage, TITLES[stage], fields)


def _model(name: str, title: str, fields: dict[str, Any]) -> type[StageForm]:
    config = ConfigDict(title=title, extra="forbid", json_schema_extra=_without_defaults)
    model = create_model(name, __base__=StageForm, **fields)
    model.model_config = {**model.model_config, **config}
    model.model_rebuild(force=True)
    return model


def _field(name: str, schema: Schema) -> Any:
    """An optional value, without a default: the experiment's isn't known here."""
    shown = {key: value for key, value in _without_null(schema).items() if key != "default"}
    kind = Annotated[Any, AfterValidator(partial(_checked, schema=schema)), WithJsonSchema({**shown, "title": name})]
    return (kind, None)


def _checked(value: Any, schema: Schema) -> Any:
    if value is not None and not accepts(value, schema):
        raise ValueError(f"found {value!r}, expected {describe(schema)}")
    return value


def _without_null(schema: Schema) -> Schema:
    """The schema of a given value: null means the same as leaving it out."""
    options = [option for option in schema.get("anyOf", []) if option.get("type") != "null"]
    if {"integer", "number"} <= {option.get("type") for option in options}:
        options = [option for option in options if option.get("type") != "integer"]
    if len(options) == 1:
        return {**{key: value for key, value in schema.items() if key != "anyOf"}, **options[0]}
    return {**schema, "anyOf": options} if options else schema


def _without_defaults(schema: Schema) -> None:
    for field in schema.get("properties", {}).values():
        field.pop("default", None)


if TYPE_CHECKING:
    Pretrain = StageForm
    Sft = StageForm
    Evaluate = StageForm
    Publish = StageForm
else:
    Pretrain, Sft, Evaluate, Publish = (stage_form(stage) for stage in ("pretrain", "sft", "evaluate", "publish"))

"""The table of settings that a fine-tuning stage takes from its base, and of those that it sets itself.

The plan, the log, ``result.json``, the report, Prefect's UI and the published ``titanflow.json`` show these rows in
this order: the settings that readers ask for first, changed or not; others that differ; inherited ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from titanflow.architectures.base import FOLLOWS_SEQ_LEN, BaseArchitecture, may_differ
from titanflow.architectures.new_tokens import new_tokens, token_rows
from titanflow.config.batch import GLOBAL, LOCAL, global_batch_size, rows_key
from titanflow.config.device import stage_device
from titanflow.config.keys.training import RENDERED_KINDS
from titanflow.config.means.recipe import averaged_stages
from titanflow.config.mixture import row_kinds
from titanflow.config.model_args import family
from titanflow.data.dataset_info import is_complete, read_facts
from titanflow.data.tokenizer.tokenizer import described_size
from titanflow.files.yaml_source import flatten
from titanflow.runs.contract import StageRun
from titanflow.runs.results import InheritanceRow

SHOWN = (
    "optimizer.lr",
    "training.steps",
    LOCAL,
    GLOBAL,
    "training.seq_len",
    "debug.seed",
    "launcher.device",
)
"""Settings that the table always shows, after the loss mask and dropout."""

SECTIONS = (
    "training",
    "chat",
    "optimizer",
    "lr_scheduler",
    "parallelism",
    "activation_checkpoint",
    "compile",
    "quantize",
    "debug",
    "lora",
)
"""Sections whose differences from the base's the table shows."""

DROPOUT = re.compile(r"(?:.*\.)?(?:\w+_)?dropout(?:_\w+)?")
UNKNOWN = "unknown"


def inheritance_table(base: BaseArchitecture, run: StageRun) -> list[InheritanceRow]:
    """The rows of a fine-tuning stage, planned or begun."""
    rows = [_loss_mask(base, run), *_dropout(base, run), *_always(base, run), *_differing(base, run)]
    return [*rows, *_inherited(base, run, {row.key for row in rows})]


def _loss_mask(base: BaseArchitecture, run: StageRun) -> InheritanceRow:
    """The tokens that count in the loss: all of a text, or the assistant's in a chat."""
    info = _prepared(run)
    here = "on" if info.get("kind") in RENDERED_KINDS else _mask(run.config)
    before = _mask(base.config) if base.config else None
    row = _own("loss_mask", before, here, base, run.origins.get("data.kind", ""))
    row.here += f", {info['trained_tokens']:,} of {info['tokens']:,} tokens trained" if info else ""
    return row


def _mask(config: Mapping[str, Any]) -> str:
    return "on" if row_kinds(config.get("data") or {}) & {*RENDERED_KINDS} else "off"


def _prepared(run: StageRun) -> dict[str, Any]:
    """The description of the stage's rows; empty until they are prepared."""
    folder = run.data.train
    return read_facts(folder) if folder is not None and is_complete(folder) else {}


def _dropout(base: BaseArchitecture, run: StageRun) -> Iterator[InheritanceRow]:
    args, own = flatten(base.model_args), _own_args(run)
    keys = [key for key in dict.fromkeys([*args, *own]) if DROPOUT.fullmatch(key)]
    for key in keys:
        yield _argument(key, args, own, run)
    if not keys:
        # Of a user's own family a plan knows only the arguments that are written.
        is_known = base.folder is not None or family(base.model_name) is not None
        said = f"none, {base.model_name} has no dropout" if is_known else UNKNOWN
        yield InheritanceRow(key="model.dropout", how="kept", base=said, here=said)
    lora = run.config.get("lora") or {}
    if lora.get("rank"):
        theirs = flatten(base.config.get("lora") or {}) if base.config else {}
        origin = run.origins.get("lora.dropout", "")
        yield _own("lora.dropout", theirs.get("dropout"), lora.get("dropout"), base, origin)


def _always(base: BaseArchitecture, run: StageRun) -> Iterator[InheritanceRow]:
    for key in SHOWN:
        before, here = _value(base.config, key), _value(run.config, key)
        row = _own(key, before, here, base, run.origins.get(rows_key(run.config) if key == GLOBAL else key, ""))
        if key == "training.seq_len" and base.seq_len and isinstance(here, int) and here > base.seq_len:
            changes_rope = (run.config.get("model") or {}).get("change_rope")
            allowed = "model.change_rope" if changes_rope else "training.allow_longer_context"
            row.here += f", longer than any row of {base.stage}'s, by {allowed}"
        elif key == "launcher.device" and here == "auto" and not run.config["launcher"].get("pool"):
            # Outside of a pool, the stage runs on this machine.
            device = stage_device(run.config["launcher"])
            row.here += f" ({device.kind})" if device is not None else ""
        yield row


def _value(config: Mapping[str, Any], key: str) -> Any:
    if key == GLOBAL:
        return global_batch_size(config)
    section, _, name = key.partition(".")
    return (config.get(section) or {}).get(name)


def _differing(base: BaseArchitecture, run: StageRun) -> Iterator[InheritanceRow]:
    args = flatten(base.model_args)
    for key, value in _own_args(run).items():
        if value != args.get(key) and not DROPOUT.fullmatch(key):
            yield _argument(key, args, {key: value}, run)
    if tokens := new_tokens(run):
        rows, here = base.model_args.get("vocab_size", 0), f"{grown_rows(base, run)}, with {', '.join(tokens)}"
        origin = _place(run.origins.get("tokenizer.new_special_tokens", ""))
        yield InheritanceRow(key="model.vocab_size", how="changed", base=str(rows), here=here, origin=origin)
    for section in SECTIONS if base.config else ():
        own, theirs = (flatten(config.get(section) or {}) for config in (run.config, base.config))
        for name, value in own.items():
            key = f"{section}.{name}"
            is_shown = key in SHOWN or (key == "lora.dropout" and own.get("rank"))
            if value != theirs.get(name) and not is_shown:
                yield _own(key, theirs.get(name), value, base, run.origins.get(key, ""))


def grown_rows(base: BaseArchitecture, run: StageRun) -> int:
    """Rows of the embedding of a stage that adds tokens; a tokenizer that isn't made yet has them behind the base's."""
    rows: int = base.model_args.get("vocab_size", 0)
    if base.tokenizer is None or (run.tokenizer and run.tokenizer.is_dir()):
        return token_rows(rows, run)
    return max(rows, described_size(base.tokenizer) + len(new_tokens(run)))


def _inherited(base: BaseArchitecture, run: StageRun, own: set[str]) -> Iterator[InheritanceRow]:
    values = {"name": base.model_name, "flavor": base.flavor, **flatten(base.model_args)}
    shown = {f"model.{key}": value for key, value in values.items() if key[0] != "_" and key != FOLLOWS_SEQ_LEN}
    if tokenizer := base.tokenizer or run.tokenizer:
        shown["tokenizer"] = tokenizer.name
    shown["weights"] = base.checkpoint.name if base.checkpoint else "its last checkpoint"
    if averaged := averaged_stages(run.config):
        shown["weights"] = f"the mean of {' and '.join(averaged)}"
    for key, value in shown.items():
        if key not in own:
            text = _shown(value)
            yield InheritanceRow(key=key, how="inherited", base=text, here=text, origin=base.stage)


def _own_args(run: StageRun) -> dict[str, Any]:
    """The model's arguments that a fine-tuning stage sets, of those that it may."""
    return {key: value for key, value in flatten(run.model_overrides).items() if may_differ(key, run.config)}


def _argument(key: str, args: Mapping[str, Any], own: Mapping[str, Any], run: StageRun) -> InheritanceRow:
    before = args.get(key)
    return _setting(f"model.{key}", before, own.get(key, before), run.origins.get(f"model.{key}", ""))


def _own(key: str, before: Any, here: Any, base: BaseArchitecture, origin: str) -> InheritanceRow:
    if base.config:
        return _setting(key, before, here, origin)
    return InheritanceRow(key=key, how="set", base=UNKNOWN, here=_shown(here), origin=_place(origin))


def _setting(key: str, before: Any, here: Any, origin: str) -> InheritanceRow:
    how = "kept" if here == before else "changed"
    return InheritanceRow(
        key=key,
        how=how,  # type: ignore[arg-type]
        base=_shown(before),
        here=_shown(here),
        origin=_place(origin) if how == "changed" else "",
    )


def _shown(value: Any) -> str:
    if isinstance(value, str) and value.startswith(("/", "~")):
        # The rows are published with the model, so a machine's paths stay out.
        return Path(value).name
    return "unset" if value is None else str(value)


def _place(origin: str) -> str:
    return origin.rpartition("/")[2]

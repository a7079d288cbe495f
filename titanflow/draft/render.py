"""Writes a draft as an experiment's YAML, with a comment for each choice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from titanflow.common.console import one_line
from titanflow.common.quantities import short
from titanflow.data.inspect.inspection import Inspection
from titanflow.draft.draft import Draft
from titanflow.draft.recipe import base_rate, learning_rate, pretrain_steps, sft_steps
from titanflow.draft.sizes import FLAVOR, UNSCALED, parse_size

NEAR = 0.2
"""A model whose size differs from the asked one by more is said to."""


@dataclass(frozen=True)
class Fit:
    """What makes a training fit its device: a rank's rows are divided, activations computed again, adapters trained."""

    divided: int = 1
    recompute: bool = False
    lora: bool = False
    narrow: bool = False


def render(draft: Draft, fit: Fit) -> str:
    """The experiment's file."""
    sources = [path for one in (draft.text, draft.chats) if one for path in one.seen.path]
    begins = f", begun with {draft.base.named}" if draft.base else ""
    head = [
        f"# A model from {one_line(_listed(sources) + begins)}. `titanflow init` wrote this for {draft.machine};",
        f"# every value is yours to change. All values that it leads to: titanflow config {draft.asked.name} --origin",
    ]
    if draft.machine.count > 1:
        head += [f"launcher: {_flow({'nproc_per_node': draft.machine.count})}      # a process for each GPU"]
    parts = [*head, "modules:"]
    parts += _pretrain(draft, fit) if draft.text else ()
    parts += _sft(draft, fit) if draft.chats else ()
    return "\n".join([*parts, *_evaluate(draft), *_publish(draft)]) + "\n"


def _pretrain(draft: Draft, fit: Fit) -> Iterator[str]:
    text = draft.text
    assert text is not None
    rows, steps = pretrain_steps(text.tokens, draft.parameters, draft.row, draft.machine, draft.base is not None)
    held_out = text.held_out(draft.row)
    yield "  pretrain:"
    yield "    config: pretrain.yaml"
    if draft.model is None:
        assert draft.base is not None
        yield f"    # {one_line(draft.base.named)}, {short(draft.parameters)} parameters, with its tokenizer"
        yield f"    model: {_flow(draft.base.section())}"
    else:
        yield f"    # {short(draft.parameters)} parameters{_why_so_many(draft)}"
        yield f"    model: {_flow({**FLAVOR, **draft.model, **UNSCALED})}"
    yield f"    # {_described(text.seen)}, about {short(text.tokens)} tokens; none of the held-out ones is trained on"
    parts = {"dev": held_out} if draft.chats else {"dev": held_out, "test": held_out}
    yield f"    data: {'' if draft.chats else '&items '}{_flow(_data(text.seen, parts))}"
    yield "    overrides:"
    passes = steps * rows * draft.row / max(1, text.tokens)
    yield f"      # {passes:.2g} passes over the text"
    yield f"      training: {_flow(_training(draft, fit, draft.row, rows, steps))}"
    rate = base_rate(draft.parameters) / 2 if draft.base else learning_rate(draft.parameters)
    why = "small: the model begins with what it knows" if draft.base else "the larger a model, the lower"
    yield f"      optimizer: {_flow({'lr': rate, 'implementation': 'fused'})}      # {why}"
    yield f"      lr_scheduler: {_flow({'warmup_steps': max(1, steps // 25)})}"
    if draft.base:
        yield f"      checkpoint: {_flow({'initial_load_in_hf': True})}      # begins with its weights"
    yield from _common(draft, fit, rows, steps)


def _sft(draft: Draft, fit: Fit) -> Iterator[str]:
    chats = draft.chats
    assert chats is not None
    rows, steps = sft_steps(chats, draft.parameters, draft.chat_row, draft.machine, draft.base is not None)
    yield "  sft:"
    if fit.lora:
        yield "    config: sft_lora.yaml      # adapters: the whole model's gradients don't fit this device"
    else:
        yield "    config: sft.yaml"
    if draft.base is not None and draft.text is None:
        yield f"    {_flow({'base': draft.base.named})[1:-1]}"
    longer, held_out = chats.longer(draft.chat_row), chats.held_out(draft.chat_row)
    long = f"; about {short(longer)} longer than a row are left out" if longer else "; nearly all fit into a row"
    yield f"    # {_described(chats.seen)}, about {chats.mean:.0f} tokens each{long}"
    if chats.seen.malformed:
        yield f"    # malformed rows are left out and counted; found: {len(chats.seen.malformed)}"
    yield f"    data: &items {_flow(_data(chats.seen, {'dev': held_out, 'test': held_out}))}"
    yield "    overrides:"
    said = draft.base.conversations(reads_text=draft.text is not None) if draft.base is not None else {}
    for section, values in said.items():
        why = "      # the base has its tokens, and no template" if section == "chat" else ""
        yield f"      {section}: {_flow(values)}{why}"
    passes = steps * rows / max(1, chats.seen.rows - longer - 2 * held_out)
    yield f"      # {passes:.2g} passes over the conversations"
    yield f"      training: {_flow(_training(draft, fit, draft.chat_row, rows, steps))}"
    rate = base_rate(draft.parameters, fit.lora) if draft.base else learning_rate(draft.parameters) / 2
    yield f"      optimizer: {_flow({'lr': rate, 'implementation': 'fused'})}"
    yield f"      lr_scheduler: {_flow({'warmup_steps': max(1, steps // 25)})}"
    yield from _common(draft, fit, rows, steps)


def _common(draft: Draft, fit: Fit, rows: int, steps: int) -> Iterator[str]:
    mode = "full" if fit.recompute else "none"
    why = "saves memory, and computes a third more" if fit.recompute else "memory suffices"
    yield f"      activation_checkpoint: {_flow({'mode': mode})}      # {why}"
    local = _local(draft, fit, rows)
    validation = {"enable": True, "freq": max(1, steps // 2), "steps": -1, "local_batch_size": local}
    yield f"      validation: {_flow(validation)}      # on the dev part"


def _evaluate(draft: Draft) -> Iterator[str]:
    is_templated = draft.base is None or draft.base.has_template
    yield "  evaluate:"
    yield "    config: evaluate.yaml"
    yield "    data: *items      # of its test part; to choose by: --set evaluate.data.part=dev"
    if draft.chats is None:
        yield "    overrides: {tasks: [held_out_text], models: [base]}      # bits that a byte of the text takes"
    elif is_templated:
        yield "    overrides: {tasks: [held_out_chats]}      # how well the answers are predicted"
    else:
        yield "    # how well the answers are predicted; the base itself has no chat template to be asked through"
        yield "    overrides: {tasks: [held_out_chats], models: [sft]}"


def _publish(draft: Draft) -> Iterator[str]:
    place = {"target": "hub", "repo_id": draft.asked.hub} if draft.asked.hub else {}
    model = {} if draft.chats else {"model": "pretrain"}
    yield "  publish:"
    yield "    config: publish.yaml"
    if draft.asked.hub:
        yield "    # into a private repository; a run needs HF_TOKEN (write access) or `hf auth login` at its start"
    else:
        yield "    # into the run's folder; to the Hub: target: hub, repo_id: OWNER/NAME"
    yield "    # own_tasks: true publishes your held-out items, too, so that anyone can make the scores again;"
    yield "    # license: apache-2.0 is what the card says, unless you set another"
    yield f"    overrides: {_flow({**place, **model, 'own_tasks': False})}"


def _training(draft: Draft, fit: Fit, row: int, rows: int, steps: int) -> dict[str, Any]:
    local = _local(draft, fit, rows)
    found = {"seq_len": row, "local_batch_size": local, "global_batch_size": rows, "steps": steps}
    return found | ({"dtype": "bfloat16"} if fit.narrow else {})


def _local(draft: Draft, fit: Fit, rows: int) -> int:
    """Rows that one rank computes at a time: a divisor of its share of a step."""
    share = rows // draft.machine.count
    return next(local for local in range(max(1, share // fit.divided), 0, -1) if share % local == 0)


def _data(seen: Inspection, held_out: dict[str, int]) -> dict[str, Any]:
    path = seen.path[0] if len(seen.path) == 1 else seen.path
    kind = {"kind": "chat"} if seen.kind == "chat" else {}
    return {**kind, "path": path, **{key: seen.data[key] for key in seen.data if key != "kind"}, "held_out": held_out}


def _described(seen: Inspection) -> str:
    what = "conversations" if seen.kind == "chat" else f"{seen.data.get('document', 'document')}s"
    about = "" if seen.is_whole else "about "
    kinds = " and ".join(dict.fromkeys(one.kind for one in seen.facts))
    return f"{about}{short(seen.rows)} {what} ({kinds})"


def _why_so_many(draft: Draft) -> str:
    if draft.asked.size:
        is_near = abs(draft.parameters / parse_size(draft.asked.size) - 1) < NEAR
        asked = f"--size {draft.asked.size} asks"
        return f", as {asked}" if is_near else f", the nearest to what {asked} for"
    return ": as many as this text and a short run here can teach; --size 10M asks for others"


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def _flow(value: dict[str, Any]) -> str:
    """A mapping in braces; a long one goes on in further lines."""
    dumped = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=100)
    return str(dumped).strip().replace("\n", "\n      ")

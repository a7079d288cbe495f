"""The commands on a card that reproduce its scores: lm-eval's own, typed in the published folder."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from titanflow.architectures.base import TOKENIZER_FILE
from titanflow.architectures.remote_code import EVALS
from titanflow.evals.asked_as_chat import asked_as_chat
from titanflow.evals.asked_tasks import AskedTasks
from titanflow.evals.known_names import GENERATE
from titanflow.publish.bundle import SCORED, SUITE_FILES, TASKS, Bundle, modelling_code
from titanflow.publish.lineage import EvaluatedStage


def score_commands(evaluation: EvaluatedStage, bundle: Bundle) -> list[str]:
    """A command for the tasks that are asked as a conversation and one for the others, if there are such.

    The experiment's own tasks are left out if the bundle lacks their files. Empty if the evaluation left no record of
    how it asked.
    """
    config = evaluation.run.config
    setting, missing = config.get("chat", "auto"), unpublished(evaluation.asked, bundle)
    parts: dict[bool, list[str]] = {}
    for name, tasks in evaluation.asked.tasks.items():
        if name not in missing:
            metadata = {task.name: task.config.get("metadata") for task in tasks}
            chat = any(asked_as_chat(name, metadata, setting).values())
            parts.setdefault(chat, []).append(name)
    model = model_args(bundle, config)
    return [_command(names, chat, config, model, bundle) for chat, names in parts.items()]


def unpublished(asked: AskedTasks, bundle: Bundle) -> list[str]:
    """The experiment's own tasks and groups, if the bundle lacks one of their files."""
    files = (path.relative_to(asked.folder).as_posix() for path in asked.files if asked.folder)
    return [] if all(f"{TASKS}/{file}" in bundle for file in files) else asked.own


def drawn_tasks(evaluation: EvaluatedStage) -> list[str]:
    """The tasks whose answers are drawn at random: lm-eval draws others, whose scores are only near these."""
    given = evaluation.run.config.get("gen_kwargs") or {}
    return [task.name for task in evaluation.asked.single if _is_drawn(task.config, given)]


def inexact(config: Mapping[str, Any]) -> list[str]:
    """The settings of an evaluation that make a score's last digits depend on the device and on the batches."""
    dtype = config.get("dtype", "float32")
    return [*([dtype] if dtype != "float32" else []), *(["vLLM"] if config.get("backend") == "vllm" else [])]


def _is_drawn(config: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    settings = {**(config.get("generation_kwargs") or {}), **given}
    drawn = settings.get("do_sample", float(settings.get("temperature") or 0) > 0)
    return config.get("output_type", GENERATE) == GENERATE and bool(drawn)


def model_args(bundle: Bundle, config: Mapping[str, Any]) -> str:
    """lm-eval's arguments for the model; a text's first token is scored after the end of text, as in the stage."""
    given = ["pretrained=.", f"dtype={config.get('dtype', 'float32')}"]
    if config.get("backend") == "vllm":
        # lm-eval's --seed doesn't reach vLLM, which draws the answers.
        given.append(f"seed={config.get('seed', 1234)}")
    if modelling_code(bundle):
        given.append("trust_remote_code=True")
    # By default lm-eval uses the tokens that a tokenizer puts around a text, and its begin token if it has one.
    if not isinstance(config.get("models"), Mapping) and (end := _end_of_text(bundle)) is not None:
        given += ["add_bos_token=False", f"prefix_token_id={end}"]
    return ",".join(given)


def _end_of_text(bundle: Bundle) -> int | None:
    """The id of the end of text if the tokenizer has a token for a text's beginning, or puts any token around it."""
    named = json.loads(bundle["tokenizer_config.json"].read())
    begin, end = (_text(named.get(key)) for key in ("bos_token", "eos_token"))
    if not end:
        return None
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_buffer(bundle[TOKENIZER_FILE].read())
    return tokenizer.token_to_id(end) if begin or tokenizer.num_special_tokens_to_add(False) else None


def _text(token: Any) -> str:
    return str(token.get("content", "")) if isinstance(token, Mapping) else token or ""


def _command(tasks: list[str], chat: bool, config: Mapping[str, Any], model: str, bundle: Bundle) -> str:
    options = [["--tasks", ",".join(tasks)]]
    if any(map(SUITE_FILES.fullmatch, bundle)):
        options.append(["--include_path", EVALS])
    elif any(name.startswith(f"{TASKS}/") for name in bundle):
        options.append(["--include_path", TASKS])
    if SCORED in bundle:
        options.append(["--samples", SCORED])
    if chat:
        options.append(["--apply_chat_template"])
        if not config.get("fewshot_as_multiturn", True):
            options.append(["--fewshot_as_multiturn", "false"])
    if instruction := config.get("system_instruction"):
        # As one word: the parser would take an instruction that begins with a dash for an option.
        options.append([f"--system_instruction={instruction}"])
    if config.get("num_fewshot") is not None:
        options.append(["--num_fewshot", str(config["num_fewshot"])])
    if gen_kwargs := config.get("gen_kwargs"):
        options.append(["--gen_kwargs", *(f"{key}={value!r}" for key, value in gen_kwargs.items())])
    options.append(["--batch_size", str(config.get("batch_size", 16)), "--seed", str(config.get("seed", 1234))])
    backend = str(config.get("backend", "hf"))
    return " \\\n  ".join(map(shlex.join, [["lm_eval", "run", "--model", backend, "--model_args", model], *options]))

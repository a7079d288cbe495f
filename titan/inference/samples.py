"""Answers of a model at each validation of its training: greedy, and without a trace in the training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor
from torchtitan.components.validate import Validator
from torchtitan.config import JobConfig
from torchtitan.tools import utils
from torchtitan.tools.logging import logger

from titan.tracking.metrics_file import MetricsFile
from titanflow.common.console import one_line
from titanflow.common.errors import ConfigError, Problem
from titanflow.config.keys.training import RENDERED_KINDS
from titanflow.config.mixture import row_kinds
from titanflow.data.chat.encoder import ChatEncoder
from titanflow.data.chat.layout import Conversation
from titanflow.data.tokenizer.tokenizer import LoadedTokenizer, load_tokenizer
from titanflow.runs.contract import StageRun
from titanflow.runs.metrics import SAMPLES_FILE


@dataclass
class Samples:
    """Prompts as token ids by their text, and how they are answered.

    ``ends`` are the tokens that end an answer, ``context`` is the most tokens of prompt and answer together.
    """

    prompts: dict[str, list[int]]
    ends: frozenset[int]
    new_tokens: int
    context: int
    decode: Callable[[list[int]], str]
    file: MetricsFile
    _has_begun: bool = field(default=False, init=False)

    @torch.no_grad()
    def answer(self, validator: Validator, model_parts: list[nn.Module], step: int) -> None:
        """Logs an answer to each prompt; all ranks call it, with models in evaluation mode.

        Nothing draws a number, so that training goes on as it would have.
        """
        writes = validator.metrics_processor.writes
        if writes and not self._has_begun:
            # A killed attempt may have got further than the checkpoint that this one began from.
            self.file.keep(lambda record: record["step"] < step)
        self._has_begun = True
        for prompt, tokens in self.prompts.items():
            answer = self.decode(self._continued(validator, model_parts[0], tokens))
            if writes:
                logger.info(f"sample step: {step:2}  {one_line(prompt)} → {one_line(answer)}")
                self.file.append({"step": step, "prompt": prompt, "answer": answer})

    def _continued(self, validator: Validator, model: nn.Module, prompt: list[int]) -> list[int]:
        tokens = list(prompt)
        while len(tokens) < min(len(prompt) + self.new_tokens, self.context):
            if (token := _likeliest(validator, model, tokens)) in self.ends:
                break
            tokens.append(token)
        return tokens[len(prompt) :]


def _likeliest(validator: Validator, model: nn.Module, tokens: list[int]) -> int:
    """The likeliest next token, the same on all ranks."""
    # With sequence parallelism each rank has an equal part of the row; a causal model doesn't look at what is behind.
    padding = [0] * (-len(tokens) % validator.parallel_dims.tp)
    row = torch.tensor([[*tokens, *padding]], device=utils.device_type)
    inputs, _, extra_inputs, extra_kwargs = validator.post_dataloading_process({"input": row}, row, [model])
    # Rows of each length would be compiled anew, and training might then take another of the compiled versions.
    with (
        torch.compiler.set_stance("force_eager"),
        validator.validation_context(),
        validator.maybe_enable_amp,
    ):
        logits = model(inputs, **extra_inputs, **extra_kwargs)
    logits = logits.full_tensor() if isinstance(logits, DTensor) else logits
    token = logits[0, len(tokens) - 1].float().argmax()
    if dist.get_world_size() > 1:
        # Were two ranks to part at a near tie, one would wait for the other's next pass for ever.
        dist.broadcast(token, src=0)
    return int(token)


def samples_of(run: StageRun, job_config: JobConfig) -> Samples | None:
    """The stage's prompts, encoded as inference would encode them; None if there are none.

    Raises:
        ConfigError: a prompt leaves no room for an answer, or there is no tokenizer.
    """
    settings, context = job_config.samples, job_config.training.seq_len
    if not settings.prompts:
        return None
    if run.tokenizer is None:
        raise ConfigError(run.placed([Problem("the stage has no tokenizer", "samples.prompts")]))
    tokenizer = load_tokenizer(run.tokenizer)
    encode, ends = _encoder(run, tokenizer)
    prompts = {prompt: encode(prompt) for prompt in settings.prompts}
    if long := [prompt for prompt, tokens in prompts.items() if len(tokens) >= context]:
        found = f"a prompt of {len(prompts[long[0]])} tokens: {one_line(long[0][:40])}…"
        expected = f"fewer than training.seq_len={context}, so that there is room for an answer"
        raise ConfigError(run.placed([Problem(found, "samples.prompts", expected=expected)]))
    file = MetricsFile(Path(run.folder) / SAMPLES_FILE)
    return Samples(prompts, ends, settings.max_new_tokens, context, tokenizer.decode, file)


def _encoder(run: StageRun, tokenizer: LoadedTokenizer) -> tuple[Callable[[str], list[int]], frozenset[int]]:
    """What makes a prompt's tokens, and the tokens that end an answer."""
    from titan.weights.stage_model import chat_template, end_of_turn
    from titanflow.config.files.chat_template import template_of

    ends = frozenset({tokenizer.end_of_text_id, *end_of_turn(run)})
    data = run.config.get("data") or {}
    if data.get("kind") not in RENDERED_KINDS and not row_kinds(data) <= {*RENDERED_KINDS}:
        return tokenizer.encode, ends
    template = chat_template(run) or template_of(tokenizer.folder)
    if template is None:
        found = "the stage trains on conversations, and its tokenizer has no chat template"
        raise ConfigError(run.placed([Problem(found, "samples.prompts")]))
    encoder = ChatEncoder(tokenizer, template, "of the stage")

    def as_message(prompt: str) -> list[int]:
        return encoder.prompt(Conversation([{"role": "user", "content": prompt}]))

    return as_message, ends | {encoder.end_of_turn_id}

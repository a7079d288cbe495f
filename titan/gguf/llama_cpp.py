"""A GGUF file loaded by real llama.cpp, as the package xllamacpp brings it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from titanflow.common.errors import StageFailed


class LlamaCpp:
    """One file in llama.cpp's own server, on the CPU and in this process; it listens on this machine alone.

    Keys and values are cached in float32. llama.cpp's default, float16, would hide how exact the file is.
    """

    def __init__(self, path: Path, context: int) -> None:
        import torch
        import xllamacpp

        settings = xllamacpp.CommonParams()
        settings.model.path = str(path)
        settings.n_ctx, settings.n_parallel, settings.n_gpu_layers = context, 1, 0
        settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        # Threads of its own choice would wait for each other on cores that other processes use.
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = torch.get_num_threads()
        settings.n_threads_http = 2
        # It warms up for nothing, would fit itself to the machine, and serve a page.
        settings.warmup = settings.fit_params = settings.ui = False
        settings.verbosity = 1
        try:
            self.server: Any = xllamacpp.Server(settings)
        except RuntimeError as error:
            raise StageFailed(f"llama.cpp can't load {path.name}: {error}") from error
        self.address = urlsplit(self.server.listening_address).netloc
        # A server whose loop begins after it was told to end never ends: a first answer shows that the loop goes.
        self.generate([0], 0)
        self.letter = self.tokenize("a", special=False)[-1]

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # It ends as it is freed.
        del self.server

    def tokenize(self, text: str, special: bool) -> list[int]:
        """The ids of a text; ``special`` says whether the text of a special token is one, or plain text."""
        found: list[int] = self._ask("/tokenize", content=text, add_special=True, parse_special=special)["tokens"]
        return found

    def next_token(self, prompt: list[int], likeliest: int) -> dict[int, float]:
        """The ``likeliest`` next tokens with their log-probabilities, the greedy choice first."""
        said = self._ask(
            "/completion",
            prompt=prompt,
            n_predict=1,
            n_probs=likeliest,
            temperature=0,
            cache_prompt=True,
            # The log-probabilities are the model's own, whatever is chosen. The server tells none behind the first
            # bytes of a character, so that a letter is chosen.
            logit_bias=[[self.letter, 1e9]],
        )
        return {one["id"]: one["logprob"] for one in said["completion_probabilities"][0]["top_logprobs"]}

    def generate(self, prompt: list[int], tokens: int) -> list[int]:
        """The greedy continuation of at most so many ids; it ends where llama.cpp sees an end."""
        said = self._ask(
            "/completion", prompt=prompt, n_predict=tokens, temperature=0, return_tokens=True, cache_prompt=True
        )
        return list(said["tokens"])

    def render(self, conversation: Mapping[str, Any]) -> str:
        """A conversation (``messages``, and ``tools`` if there are any) as the file's chat template renders it, up to
        the model's turn."""
        found: str = self._ask("/apply-template", **conversation)["prompt"]
        return found

    def _ask(self, path: str, /, **body: Any) -> Any:
        # Not through urllib, which may send a request to a proxy.
        connection = http.client.HTTPConnection(self.address)
        try:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = json.loads(answer.read())
        finally:
            connection.close()
        if answer.status != 200:
            raise StageFailed(f"llama.cpp answers {path} with {answer.status}: {content}")
        return content

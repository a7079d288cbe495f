"""The ``config`` of a prepare stage's ``run.yaml``.

::

    workspace: ./runs
    launcher: {kind: local, nnodes: 1, nproc_per_node: null, slurm: {…}}    # prepare.launcher
    tokenizer: {folder: …, vocab_size: 2048, train_on: {…}}
    weights: []               # models of the Hub that stages begin with: {repo_id, revision, folder}
    datasets:
      - {folder: …, kind: text, data: {…}, seq_len: 256, chat: {…}, fingerprint: …}

``chat`` holds ``template`` (the Jinja source), ``template_name``, ``turns`` and ``proof_rows``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from titanflow.config.files.template_args import with_defaults
from titanflow.config.keys.launcher import PrepareLauncher
from titanflow.config.keys.training import Data
from titanflow.config.mixture import mixture_members
from titanflow.data.chat.render import ToolArguments, Turns
from titanflow.data.chat.tokenise import ChatPlan
from titanflow.data.fingerprints import data_name
from titanflow.data.tokenizer.tokenizer import CONFIG_FILE
from titanflow.runs.contract import Strict


class TokenizerPlan(Strict):
    """The tokenizer to make: a copy of ``path``, or one of ``vocab_size`` trained on the text of ``train_on``.

    With a ``repo_id`` it is the Hub's at ``revision``, a commit; ``path`` is then its place in the planner's Hub cache.
    """

    folder: Path
    path: Path | None = None
    repo_id: str = ""
    revision: str = ""
    vocab_size: int = 0
    words: str = ""
    train_on: dict[str, Any] = Field(default_factory=dict)
    new_special_tokens: list[str] = Field(default_factory=list)

    @property
    def is_there(self) -> bool:
        return (self.folder / CONFIG_FILE).is_file()

    @property
    def texts(self) -> list[Data]:
        members = mixture_members(self.train_on) or {data_name(self.train_on): self.train_on}
        return [Data(**{**member, "name": name, "kind": "text"}) for name, member in members.items()]


class ChatSettings(Strict):
    """How conversations become tokens; see :class:`titanflow.data.chat.tokenise.ChatPlan`."""

    template: str
    template_name: str
    template_args: dict[str, Any] = Field(default_factory=dict)
    turns: Turns = "all"
    tool_arguments: ToolArguments = "mapping"
    proof_rows: int | None = None


class DatasetPlan(Strict):
    """One folder of rows or evaluation items to make; ``members`` are the folders of a mixture's sources.

    ``trains`` says whether its rows are trained on; validation and evaluation data may then hold none of them.
    """

    folder: Path
    kind: Literal["text", "chat", "pairs", "evals", "mixture"]
    data: dict[str, Any]
    members: dict[str, Path] = Field(default_factory=dict)
    seq_len: int = 0
    chat: ChatSettings | None = None
    fingerprint: str = ""
    trains: bool = True

    @property
    def config(self) -> Data:
        """The data config, with the folder's name."""
        return Data(**{**self.data, "name": data_name(self.data)})

    @property
    def chat_plan(self) -> ChatPlan:
        assert self.chat is not None
        settings = self.chat.model_dump()
        template = with_defaults(settings["template"], settings.pop("template_args"))
        return ChatPlan(seq_len=self.seq_len, **{**settings, "template": template})


class WeightsPlan(Strict):
    """A model of the Hub whose weights must be in the Hub's cache before a stage loads them."""

    repo_id: str
    revision: str
    folder: Path


class PreparePlan(Strict):
    """The ``config`` of a prepare stage."""

    workspace: Path
    launcher: PrepareLauncher = Field(default_factory=PrepareLauncher)
    tokenizer: TokenizerPlan | None = None
    weights: list[WeightsPlan] = Field(default_factory=list)
    datasets: list[DatasetPlan] = Field(default_factory=list)

"""Prepares an experiment's data before anything is trained: ``python -m titanflow.data.prepare run.yaml``.

The stage's ``config`` is a :class:`titanflow.data.prepare_plan.PreparePlan`. A folder that is complete is left alone.
Each other one is written beside its place and renamed, so that a kill leaves nothing that counts. All inputs are read
and checked before anything is written.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil

from titanflow.architectures.huggingface import download_weights, missing_weights
from titanflow.common.errors import DataError, Problem, StageFailed
from titanflow.common.staging import discard_staged, no_room, scratch_folder, staged_folder
from titanflow.config.keys.training import Data, HeldOut
from titanflow.config.mixture import mixture_spec
from titanflow.data.chat.source import load_chats
from titanflow.data.chat.tokenise import write_chats
from titanflow.data.chat.unread import unread_lines
from titanflow.data.dataset_info import DATASET_FILE, account, is_complete, read_info
from titanflow.data.files.sources import Source
from titanflow.data.files.text_source import TEXT, check_text, load_text
from titanflow.data.files.tokenise_text import Work, write_text
from titanflow.data.held_out.eval_items import check_items, write_items
from titanflow.data.held_out.held_out_items import write_held_out_items
from titanflow.data.held_out.overlap import check_overlap
from titanflow.data.held_out.parts import part_of
from titanflow.data.mixture import write_mixture
from titanflow.data.prepare_plan import DatasetPlan, PreparePlan
from titanflow.data.prepared import PreparedRows
from titanflow.data.tokenizer.checks import check_given
from titanflow.data.tokenizer.hf_tokenizer import download_tokenizer
from titanflow.data.tokenizer.tokenizer import (
    CONFIG_FILE,
    add_special_tokens,
    check_vocab_size,
    copy_tokenizer,
    train_tokenizer,
)
from titanflow.run.contract import INTERRUPTED_EXIT, StageRun
from titanflow.run.errors import record_failure
from titanflow.run.results import PrepareResult, write_result

# Bytes of text from which on its tokens are kept though another dataset may still fail.
_TAKES_LONG = 64 << 20


class Preparation:
    """One run of the prepare stage; ``scratch`` is a folder for what lasts as long as the run."""

    def __init__(self, plan: PreparePlan, scratch: Path) -> None:
        self.plan = plan
        self.work = Work(plan.num_proc, scratch)
        self._sources: dict[str, Source] = {}

    def run(self) -> PrepareResult:
        """Makes what is missing and says what there is.

        Raises:
            DataError: an input can't be used.
        """
        started = time.monotonic()
        wanted = {dataset.folder: dataset for dataset in self.plan.datasets}.values()
        missing = [dataset for dataset in wanted if not is_complete(dataset.folder)]
        if missing:
            show_progress()
        self._check(missing)
        self._download_weights()
        mixtures = [dataset for dataset in missing if dataset.kind == "mixture"]
        missing = [dataset for dataset in missing if dataset.kind != "mixture"]
        late = [dataset for dataset in missing if self._takes_long(dataset)]
        with ExitStack() as together:
            tokenizer = self._tokenizer(together)
            early = [dataset for dataset in missing if dataset not in late]
            # Chats first: their mistakes are the ones that only a close look finds.
            made = {}
            for dataset in sorted(early, key=lambda dataset: dataset.kind != "chat"):
                made[dataset.folder] = together.enter_context(staged_folder(dataset.folder, DATASET_FILE))
                self._make(dataset, tokenizer, made[dataset.folder])
            self._check_overlap(made)
        tokenizer = self.plan.tokenizer.folder if self.plan.tokenizer else None
        for dataset in late:
            with staged_folder(dataset.folder, DATASET_FILE) as folder:
                self._make(dataset, tokenizer, folder)
                self._check_overlap({dataset.folder: folder})
        for dataset in mixtures:
            with staged_folder(dataset.folder, DATASET_FILE) as folder:
                spec = mixture_spec(dataset.data)
                write_mixture(folder, dataset.config.name, dataset.fingerprint, spec, dataset.members)
        reports = {str(dataset.folder): dataset_report(dataset) for dataset in self.plan.datasets}
        return PrepareResult(tokenizer=tokenizer, datasets=reports, seconds=round(time.monotonic() - started, 3))

    def _check(self, missing: list[DatasetPlan]) -> None:
        self._check_tokenizer()
        for dataset in missing:
            if dataset.kind == "mixture":
                continue
            if dataset.kind == "evals":
                check_items(dataset.config) if dataset.config.kind == "evals" else self._source(dataset.config)
            elif self.plan.tokenizer is None:
                raise DataError(Problem(f"{dataset.config.name} needs a tokenizer", "tokenizer"))
            elif dataset.kind == "text":
                check_text(self._source(dataset.config), dataset.config, dataset.seq_len)
            else:
                self._source(dataset.config)

    def _download_weights(self) -> None:
        for model in self.plan.weights:
            if missing_weights(model.folder):
                with timed(f"the weights of {model.repo_id}"):
                    download_weights(model.repo_id, model.revision, model.folder)

    def _check_overlap(self, staged: dict[Path, Path]) -> None:
        """Compares the rows of what there is; ``staged`` says where the folders lie that are being written."""
        folders: dict[bool, dict[str, Path]] = {True: {}, False: {}}
        for dataset in self.plan.datasets:
            there = staged.get(dataset.folder, dataset.folder)
            if dataset.kind != "mixture" and is_complete(there):
                folders[dataset.trains][dataset.folder.name] = there
        check_overlap(folders[True], folders[False])

    def _check_tokenizer(self) -> None:
        tokenizer = self.plan.tokenizer
        if tokenizer is None or tokenizer.is_there:
            return
        if given := self._given_tokenizer():
            check_given(given)
        else:
            check_vocab_size(tokenizer.vocab_size)
            for text in tokenizer.texts:
                check_text(self._source(text), text, seq_len=0)

    def _given_tokenizer(self) -> Path | None:
        """The folder to copy: brought again where the Hub's cache, or that of another machine, lacks it."""
        plan = self.plan.tokenizer
        if plan is None or not plan.repo_id:
            return plan.path if plan else None
        return download_tokenizer(plan.repo_id, plan.revision)

    def _takes_long(self, dataset: DatasetPlan) -> bool:
        # These are kept as soon as each is done; by then all that could be wrong with the rest has been seen.
        return dataset.kind == "text" and self._source(dataset.config).rows.data.nbytes > _TAKES_LONG

    def _source(self, data: Data) -> Source:
        """The rows of a data config, or of the part of them that it names; each file is read once for all parts."""
        key = json.dumps(asdict(data), sort_keys=True)
        if key not in self._sources:
            if data.held_out != HeldOut():
                whole = self._source(replace(data, held_out=HeldOut(), part=None))
                self._sources[key] = part_of(whole, data, self.work)
            else:
                load = load_chats if data.kind == "chat" else load_text
                self._sources[key] = load(data, self.work.scratch)
        return self._sources[key]

    def _tokenizer(self, together: ExitStack) -> Path | None:
        plan = self.plan.tokenizer
        if plan is None or plan.is_there:
            return plan.folder if plan else None
        folder = together.enter_context(staged_folder(plan.folder, CONFIG_FILE))
        if given := self._given_tokenizer():
            copy_tokenizer(given, folder)
            add_special_tokens(folder, plan.new_special_tokens)
            return folder
        with timed(f"tokenizer: a vocabulary of {plan.vocab_size}"):
            sources = [self._source(text).rows for text in plan.texts]
            texts = (text for rows in sources for batch in rows.iter(batch_size=256) for text in batch[TEXT])
            train_tokenizer(texts, plan.vocab_size, folder, plan.words)
        return folder

    def _make(self, dataset: DatasetPlan, tokenizer: Path | None, folder: Path) -> None:
        data = dataset.config
        with timed(f"{data.name}: {dataset.kind}"):
            if dataset.kind == "evals" and data.kind != "evals":
                write_held_out_items(self._source(data), data, dataset.fingerprint, folder)
            elif tokenizer is None or dataset.kind == "evals":
                write_evals(data, dataset.fingerprint, folder)
            elif dataset.kind == "chat":
                rows, plan = self._source(data), dataset.chat_plan
                write_chats(rows, data, tokenizer, plan, dataset.fingerprint, folder, self.work)
            else:
                write_text(self._source(data), data, tokenizer, dataset.fingerprint, folder, self.work)
                PreparedRows.open(folder, dataset.seq_len)
        if dataset.kind != "evals":
            info = read_info(folder)
            print(*account(info, data), *unread_lines(info, data), sep="\n", file=sys.stderr, flush=True)


def write_evals(data: Data, fingerprint: str, folder: Path) -> None:
    """Writes evaluation items and their ``dataset.json``."""
    facts = {"kind": "evals", "name": data.name, "fingerprint": fingerprint, **write_items(data, folder)}
    (folder / DATASET_FILE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def dataset_report(dataset: DatasetPlan) -> dict[str, Any]:
    """A finished folder's ``dataset.json`` without its files; for text with the rows that this ``seq_len`` gives.

    Raises:
        DataError: the text is too short for one row.
    """
    facts: dict[str, Any] = json.loads((dataset.folder / DATASET_FILE).read_text(encoding="utf-8"))
    # There may be a hundred thousand of them.
    facts.pop("files", None)
    if dataset.kind == "text":
        facts |= {"seq_len": dataset.seq_len, "rows": len(PreparedRows.open(dataset.folder, dataset.seq_len))}
    return facts


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Says on stderr what is done, and how long it took."""
    started = time.monotonic()
    yield
    print(f"{what} ({time.monotonic() - started:.1f} s)", file=sys.stderr, flush=True)


def prepare(run: StageRun) -> PrepareResult:
    """Runs a prepare stage; what ``datasets`` writes on the way lies in the stage's folder and is removed.

    Raises:
        DataError: an input can't be used.
        StageFailed: the disk is full.
    """
    plan = PreparePlan.model_validate(run.config)
    run.folder.mkdir(parents=True, exist_ok=True)
    try:
        with scratch_folder(run.folder) as scratch:
            return Preparation(plan, scratch).run()
    except Exception as error:
        if not (said := no_room(error)):
            raise
        raise StageFailed(
            f"there is no room for the prepared data in {plan.workspace}: {said}\n"
            "    free some space, or set another workspace; nothing unfinished is left there"
        ) from error


def show_progress() -> None:
    """Shows the progress of ``datasets`` where somebody is looking; in a file it would be thousands of lines."""
    import datasets

    datasets.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()


def leave_on_sigterm() -> None:
    """On SIGTERM ends this process and those it started at once, and removes what is half written.

    An exception from a signal handler can get lost in the library that it interrupts; this can't.
    """
    parent = os.getpid()

    def leave(*_: object) -> None:
        # A process of the pool inherits the handler, and nothing there is its own to remove.
        if os.getpid() == parent:
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            discard_staged()
        os._exit(INTERRUPTED_EXIT)

    signal.signal(signal.SIGTERM, leave)


def main(arguments: list[str]) -> int:
    """Prepares what a ``run.yaml`` asks for; returns the exit code (2 for bad input, 1 for anything else)."""
    if len(arguments) != 1:
        print("usage: python -m titanflow.data.prepare run.yaml", file=sys.stderr)
        return 2
    run = StageRun.read(Path(arguments[0]))
    leave_on_sigterm()
    try:
        write_result(run.folder, prepare(run))
    except Exception as error:
        return record_failure(run.folder, error)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

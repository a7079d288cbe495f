"""Prepares an experiment's data before anything is trained: ``python -m titanflow.data.prepare run.yaml``.

The stage's ``config`` is a :class:`titanflow.data.prepare_plan.PreparePlan`. Complete folders are left alone. The
others are written beside their place and then renamed, so that a kill leaves no incomplete folder there. All inputs
are read and checked before anything is written. The work is divided into parts (:mod:`titanflow.data.parts.work`); in a
job of several machines the first one runs this, and the others make parts with it.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
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
from titanflow.common.errors import ConfigError, DataError, Problem, StageFailed
from titanflow.common.file_lock import in_turn
from titanflow.common.staging import discard_staged, no_room, scratch_folder, staged_folder
from titanflow.config.keys.training import RENDERED_KINDS, Data, HeldOut
from titanflow.config.mixture import mixture_spec
from titanflow.data.chat.source import load_chats
from titanflow.data.chat.tokenise import write_chats
from titanflow.data.chat.unread import unread_lines
from titanflow.data.dataset_info import account, is_complete, read_facts, read_info
from titanflow.data.files.sources import Source
from titanflow.data.files.text_source import TEXT, check_text, load_text
from titanflow.data.files.tokenise_text import write_text
from titanflow.data.held_out.eval_items import check_items, write_items
from titanflow.data.held_out.held_out_items import write_held_out_items
from titanflow.data.held_out.overlap import check_overlap
from titanflow.data.held_out.parts import part_of
from titanflow.data.mixture import write_mixture
from titanflow.data.pairs.tokenise import encode_pairs
from titanflow.data.parts.crew import help_leader, leading, place
from titanflow.data.parts.work import Work
from titanflow.data.prepare_plan import DatasetPlan, PreparePlan, TokenizerPlan
from titanflow.data.prepared import PreparedRows
from titanflow.data.tokenizer.checks import check_given
from titanflow.data.tokenizer.hf_tokenizer import download_tokenizer
from titanflow.data.tokenizer.tokenizer import (
    CONFIG_FILE,
    add_special_tokens,
    check_vocab_size,
    tokenizer_files,
    train_tokenizer,
)
from titanflow.runs.checkpoints import PARTS_FOLDER
from titanflow.runs.contract import DATASET_FILE, INTERRUPTED_EXIT, PREPARING_FILE, StageRun
from titanflow.runs.errors import record_failure, warn
from titanflow.runs.results import PrepareResult, write_result

# From this many bytes of text on, a dataset's tokens are kept even if a later dataset fails.
_TAKES_LONG = 64 << 20


class Preparation:
    """One run of the prepare stage."""

    def __init__(self, plan: PreparePlan, work: Work) -> None:
        self.plan = plan
        self.work = work
        self._sources: dict[str, Source] = {}

    def run(self) -> PrepareResult:
        started = time.monotonic()
        wanted = {dataset.folder: dataset for dataset in self.plan.datasets}.values()
        missing = [dataset for dataset in wanted if not is_complete(dataset.folder)]
        if missing:
            show_progress()
        self._check(missing)
        self._download_weights()
        with self._alone(missing):
            self._make_all([dataset for dataset in missing if not is_complete(dataset.folder)])
        reports = {str(dataset.folder): dataset_report(dataset) for dataset in self.plan.datasets}
        tokenizer = self.plan.tokenizer.folder if self.plan.tokenizer else None
        return PrepareResult(tokenizer=tokenizer, datasets=reports, seconds=round(time.monotonic() - started, 3))

    @contextmanager
    def _alone(self, missing: list[DatasetPlan]) -> Iterator[None]:
        """Waits for runs that make the same folders: what they have made by then needn't be made twice."""
        names = [dataset.folder.name for dataset in missing]
        if self.plan.tokenizer and not self.plan.tokenizer.is_there:
            names.append(self.plan.tokenizer.folder.name)
        with in_turn(self.plan.workspace / PREPARING_FILE, names, _waits):
            yield

    def _make_all(self, missing: list[DatasetPlan]) -> None:
        mixtures = [dataset for dataset in missing if dataset.kind == "mixture"]
        missing = [dataset for dataset in missing if dataset.kind != "mixture"]
        late = [dataset for dataset in missing if self._takes_long(dataset)]
        # Kept together or not at all: a mistake in the last one leaves nothing behind.
        with ExitStack() as together:
            tokenizer = self._tokenizer(together)
            early = [dataset for dataset in missing if dataset not in late]
            # Chats first: only a close look finds their mistakes.
            made = {}
            for dataset in sorted(early, key=lambda dataset: dataset.kind not in RENDERED_KINDS):
                made[dataset.folder] = together.enter_context(staged_folder(dataset.folder, DATASET_FILE))
                self._make(dataset, tokenizer, made[dataset.folder])
            self._check_overlap(made)
        tokenizer = self.plan.tokenizer.folder if self.plan.tokenizer else None
        for dataset in late:
            with staged_folder(dataset.folder, DATASET_FILE) as folder:
                self._make(dataset, tokenizer, folder)
                self._check_overlap({dataset.folder: folder})
        for dataset in mixtures:
            name, spec = dataset.config.name, mixture_spec(dataset.data)
            with staged_folder(dataset.folder, DATASET_FILE) as folder:
                write_mixture(folder, name, dataset.fingerprint, spec, dataset.members)

    def _check(self, missing: list[DatasetPlan]) -> None:
        self._check_tokenizer()
        for dataset in missing:
            if dataset.kind == "evals":
                check_items(dataset.config) if dataset.config.kind == "evals" else self._source(dataset.config)
            elif dataset.kind != "mixture" and self.plan.tokenizer is None:
                raise DataError(Problem(f"{dataset.config.name} needs a tokenizer", "tokenizer"))
            elif dataset.kind == "text":
                check_text(self._source(dataset.config), dataset.config, dataset.seq_len)
            elif dataset.kind in RENDERED_KINDS:
                self._source(dataset.config)

    def _download_weights(self) -> None:
        for model in self.plan.weights:
            if missing_weights(model.folder):
                with timed(f"the weights of {model.repo_id}"):
                    download_weights(model.repo_id, model.revision, model.folder)

    def _check_overlap(self, staged: dict[Path, Path]) -> None:
        """Compares the rows of all finished folders; ``staged`` has the present place of those being written."""
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
        if given := _given_tokenizer(tokenizer):
            check_given(given)
        else:
            check_vocab_size(tokenizer.vocab_size)
            for text in tokenizer.texts:
                check_text(self._source(text), text, seq_len=0)

    def _takes_long(self, dataset: DatasetPlan) -> bool:
        # Each of these is kept as soon as it is done: by then the mistakes in the others have been found.
        return dataset.kind == "text" and self._source(dataset.config).rows.data.nbytes > _TAKES_LONG

    def _source(self, data: Data) -> Source:
        """The rows of a data config, or of the part that it names; each file is read only once for all parts."""
        key = json.dumps(asdict(data), sort_keys=True)
        if key not in self._sources:
            if data.held_out != HeldOut():
                whole = self._source(replace(data, held_out=HeldOut(), part=None))
                self._sources[key] = part_of(whole, data, self.work)
            else:
                load = load_chats if data.kind in RENDERED_KINDS else load_text
                self._sources[key] = load(data, self.work)
        return self._sources[key]

    def _tokenizer(self, together: ExitStack) -> Path | None:
        plan = self.plan.tokenizer
        if plan is None or plan.is_there:
            return plan.folder if plan else None
        folder = together.enter_context(staged_folder(plan.folder, CONFIG_FILE))
        if given := _given_tokenizer(plan):
            for file in tokenizer_files(given):
                shutil.copyfile(file, folder / file.name)
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
            elif dataset.kind in RENDERED_KINDS:
                rows, plan = self._source(data), dataset.chat_plan
                encode = encode_pairs if dataset.kind == "pairs" else None
                write_chats(rows, data, tokenizer, plan, dataset.fingerprint, folder, self.work, encode)
            else:
                write_text(self._source(data), data, tokenizer, dataset.fingerprint, folder, self.work)
                PreparedRows.open(folder, dataset.seq_len)
        if dataset.kind != "evals":
            info = read_info(folder)
            print(*account(info, data), sep="\n", file=sys.stderr, flush=True)
            for line in unread_lines(info, data):
                warn(line)


def _given_tokenizer(plan: TokenizerPlan) -> Path | None:
    """The folder to copy; downloaded again if it isn't in this machine's Hub cache."""
    return download_tokenizer(plan.repo_id, plan.revision) if plan.repo_id else plan.path


def _waits(name: str) -> None:
    print(f"{name} is being prepared by another run: waits for it", file=sys.stderr, flush=True)


def write_evals(data: Data, fingerprint: str, folder: Path) -> None:
    facts = {"kind": "evals", "name": data.name, "fingerprint": fingerprint, **write_items(data, folder)}
    (folder / DATASET_FILE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def dataset_report(dataset: DatasetPlan) -> dict[str, Any]:
    """A finished folder's ``dataset.json`` without its files; for text with the rows that this ``seq_len`` gives."""
    facts: dict[str, Any] = read_facts(dataset.folder)
    # There may be a hundred thousand files.
    facts.pop("files", None)
    if dataset.kind == "text":
        facts |= {"seq_len": dataset.seq_len, "rows": len(PreparedRows.open(dataset.folder, dataset.seq_len))}
    return facts


@contextmanager
def timed(what: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    print(f"{what} ({time.monotonic() - started:.1f} s)", file=sys.stderr, flush=True)


def prepare(run: StageRun) -> PrepareResult:
    """Runs a prepare stage; temporary files are in the stage's folder and are removed.

    Finished parts stay where another try may go on from them: after a kill, or the loss of a process.
    """
    plan = PreparePlan.model_validate(run.config)
    run.folder.mkdir(parents=True, exist_ok=True)
    parts = run.folder / PARTS_FOLDER
    try:
        with ExitStack() as ends:
            crew = ends.enter_context(leading(run.folder)) if plan.launcher.nnodes > 1 else None
            scratch = ends.enter_context(scratch_folder(run.folder))
            result = Preparation(plan, Work(plan.launcher.nproc_per_node, scratch, parts, crew)).run()
    except Exception as error:
        said = no_room(error)
        if said or isinstance(error, ConfigError):
            shutil.rmtree(parts, ignore_errors=True)
        if not said:
            raise
        raise StageFailed(
            f"there is no room for the prepared data in {plan.workspace}: {said}\n"
            "    free some space, or set another workspace; nothing unfinished is left there"
        ) from error
    shutil.rmtree(parts, ignore_errors=True)
    return result


def show_progress() -> None:
    """Shows the progress of ``datasets`` only in a terminal; in a log it would be thousands of lines."""
    import datasets

    datasets.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()


def leave_on_sigterm() -> None:
    """On SIGTERM ends this process and its children at once, and removes half-written folders.

    The library that a signal interrupts may swallow an exception from the handler, so the handler exits itself.
    """
    parent = os.getpid()

    def leave(*_: object) -> None:
        # The pool's processes inherit the handler, but must not remove their parent's folders.
        if os.getpid() == parent:
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            discard_staged()
        os._exit(INTERRUPTED_EXIT)

    signal.signal(signal.SIGTERM, leave)


def leave_out_torch() -> None:
    """Imports transformers as if torch weren't there, for this process and those that it forks.

    Where it finds torch, it imports it for its models. What prepares data needs tokenizers alone, and torch would take
    more than a second and 120 MB of each process.
    """
    find_spec = importlib.util.find_spec
    # Otherwise it says that there are no models.
    os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"
    importlib.util.find_spec = lambda name, *package: None if name == "torch" else find_spec(name, *package)
    try:
        importlib.import_module("transformers")
    finally:
        importlib.util.find_spec = find_spec


def main(arguments: list[str]) -> int:
    """Runs the stage of a ``run.yaml``; returns the exit code (2 for bad input, 1 for anything else)."""
    if len(arguments) != 1:
        print("usage: python -m titanflow.data.prepare run.yaml", file=sys.stderr)
        return 2
    run = StageRun.read(Path(arguments[0]))
    leave_on_sigterm()
    launcher = PreparePlan.model_validate(run.config).launcher
    try:
        if launcher.nnodes > 1 and place():
            help_leader(run.folder, launcher.nproc_per_node)
        else:
            write_result(run.folder, prepare(run))
    except Exception as error:
        return record_failure(run.folder, error)
    return 0


if __name__ == "__main__":
    leave_out_torch()
    sys.exit(main(sys.argv[1:]))

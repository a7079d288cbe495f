"""Preparing chats for fine-tuning, tokenised, masked and packed: this project against TRL's ``SFTTrainer``.

``python benchmarks/sft_data.py [--rows 100000] [--processes 1 2]`` prints, for each number of processes, the seconds
of both and their ratio, and how much more memory this project takes for ten times the rows; and once more with as many
special tokens as Llama 3's tokenizer has. Both read the same
JSON lines with the same tokenizer and chat template, write labels of the assistant's tokens only, and pack into rows
of the same length; each runs in a process of its own, and imports aren't counted. Memory is the anonymous memory of
all its processes together at its highest, without the pages of files that are mapped.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from titanflow.data.stdlib.text import documents
from titanflow.data.tokenizer.tokenizer import SPECIAL_TOKENS, add_special_tokens, train_tokenizer

SEQ_LEN = 1024
VOCAB = 8192
LLAMA3_SPECIAL_TOKENS = 256
SAMPLE_SECONDS = 0.01


def write_chats(path: Path, rows: int) -> None:
    """Conversations of one to three questions and answers, made of lines of the standard library; all different."""
    lines = [line.strip() for text, _ in documents("train") for line in text.splitlines() if len(line.strip()) > 30]
    draw = random.Random(0)
    with path.open("w") as file:
        for number in range(rows):
            messages = [{"role": "system", "content": f"Chat {number}."}] if number % 4 == 0 else []
            for _ in range(draw.randint(1, 3)):
                messages.append({"role": "user", "content": " ".join(draw.choices(lines, k=draw.randint(1, 3)))})
                messages.append({"role": "assistant", "content": "\n".join(draw.choices(lines, k=draw.randint(1, 6)))})
            file.write(json.dumps({"messages": messages}) + "\n")


def ours(chats: Path, tokenizer: Path, folder: Path, processes: int) -> dict[str, Any]:
    """Prepares with this project; returns the figures."""
    # What is imported late isn't to be counted.
    import datasets  # noqa: F401  (imported for its time alone)
    import transformers.utils.chat_template_utils  # noqa: F401  (likewise)
    from transformers import AutoTokenizer  # noqa: F401  (likewise)

    from titanflow.config.files.chat_template import template_text
    from titanflow.config.keys.training import Data
    from titanflow.data.chat.source import load_chats
    from titanflow.data.chat.tokenise import ChatPlan, write_chats
    from titanflow.data.dataset_info import read_info
    from titanflow.data.parts.work import Work

    started = time.perf_counter()
    data = Data(name="chats", kind="chat", path=str(chats), packing="best_fit")
    out = folder / "out"
    out.mkdir()
    plan = ChatPlan(template_text("chatml"), "chatml", SEQ_LEN)
    work = Work(processes, folder)
    write_chats(load_chats(data, work), data, tokenizer, plan, "", out, work)
    seconds = time.perf_counter() - started
    info = read_info(out)
    return {"seconds": seconds, "rows": info.rows, "tokens": info.tokens, "trained": info.trained_tokens}


def trl(chats: Path, tokenizer: Path, folder: Path, processes: int) -> dict[str, Any]:
    """Prepares with TRL; returns the figures."""
    from datasets import load_dataset
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    loaded = AutoTokenizer.from_pretrained(tokenizer)
    size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(loaded), **size))
    config = SFTConfig(
        output_dir=str(folder / "trl"),
        **{"assistant_only_loss": True, "packing": True, "max_length": SEQ_LEN, "dataset_num_proc": processes},
        **{"use_cpu": True, "bf16": False, "report_to": [], "disable_tqdm": True},
    )
    started = time.perf_counter()
    rows = load_dataset("json", data_files=str(chats), split="train", cache_dir=str(folder / "cache"))
    trainer = SFTTrainer(model=model, args=config, train_dataset=rows, processing_class=loaded)
    seconds = time.perf_counter() - started
    packed = trainer.train_dataset
    return {"seconds": seconds, "rows": len(packed), "tokens": sum(map(len, packed["input_ids"]))}


def measure(side: str, chats: Path, tokenizer: Path, processes: int) -> dict[str, Any]:
    """Runs one side in a process of its own, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        arguments = [side, str(chats), str(tokenizer), folder, str(processes), str(report)]
        process = subprocess.Popen([sys.executable, __file__, "--side", *arguments], stderr=subprocess.PIPE, text=True)
        peak = [0]
        watcher = threading.Thread(target=watch, args=(process.pid, peak))
        watcher.start()
        _, errors = process.communicate()
        watcher.join()
        if process.returncode:
            sys.exit(f"{side} failed:\n{errors[-3000:]}")
        return {**json.loads(report.read_text()), "megabytes": peak[0] / 1e6}


def watch(pid: int, peak: list[int]) -> None:
    """Keeps the highest anonymous memory of a process and those it started, until it ends."""
    while psutil.pid_exists(pid):
        try:
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return
            peak[0] = max(peak[0], sum(map(anonymous, [process, *process.children(recursive=True)])))
        except psutil.NoSuchProcess:
            return
        # No event tells of memory: it can only be sampled.
        time.sleep(SAMPLE_SECONDS)


def anonymous(process: psutil.Process) -> int:
    """The bytes of a process's memory that no file holds."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return 0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")]
    return int(found[0]) * 1024 if found else 0


def compare(chats: Path, tokenizer: Path, processes: int) -> dict[str, Any]:
    """Measures both sides and prints them with the ratio; returns this project's figures."""
    own, peer = (measure(side, chats, tokenizer, processes) for side in ("ours", "trl"))
    show("titanflow", own)
    show("TRL", peer)
    print(f"  ratio of the seconds: {own['seconds'] / peer['seconds']:.3f} (below 1 is faster than TRL)", flush=True)
    return own


def show(label: str, figures: dict[str, Any]) -> None:
    """Prints one side's figures."""
    print(f"  {label}: " + ", ".join(f"{key} {value:,.1f}" for key, value in figures.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--side", nargs=6, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        side, chats, tokenizer, folder, processes, report = given.side
        run = {"ours": ours, "trl": trl}[side]
        figures = run(Path(chats), Path(tokenizer), Path(folder), int(processes))
        Path(report).write_text(json.dumps(figures))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train_tokenizer((text for text, _ in documents("train")), VOCAB, folder / "tokenizer")
        shutil.copytree(folder / "tokenizer", folder / "reserved")
        more = LLAMA3_SPECIAL_TOKENS - len(SPECIAL_TOKENS)
        add_special_tokens(folder / "reserved", [f"<|reserved_special_token_{number}|>" for number in range(more)])
        write_chats(folder / "few.jsonl", given.rows // 10)
        write_chats(folder / "chats.jsonl", given.rows)
        for processes in given.processes:
            print(f"{given.rows:,} chats, {processes} processes")
            own = compare(folder / "chats.jsonl", folder / "tokenizer", processes)
            few = measure("ours", folder / "few.jsonl", folder / "tokenizer", processes)
            show("titanflow, a tenth", few)
            print(f"  memory for ten times the rows: {own['megabytes'] / few['megabytes']:.2f} times", flush=True)
            print(f"{given.rows:,} chats, {processes} processes, {LLAMA3_SPECIAL_TOKENS} special tokens")
            compare(folder / "chats.jsonl", folder / "reserved", processes)


if __name__ == "__main__":
    main()

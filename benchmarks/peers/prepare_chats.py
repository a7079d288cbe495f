"""One side of preparing chats: ``prepare_chats.py ours|trl CHATS TOKENIZER FOLDER PROCESSES SEQ_LEN`` prints its
figures.

Both read the same JSON lines with the same tokenizer and chat template, write labels of the assistant's tokens only,
and pack into rows of the same length. Imports aren't counted.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def ours(chats: Path, tokenizer: Path, folder: Path, processes: int, seq_len: int) -> dict[str, Any]:
    """Prepares with this project."""
    from titanflow.data.prepare import leave_out_torch

    leave_out_torch()
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
    plan = ChatPlan(template_text("chatml"), "chatml", seq_len)
    work = Work(processes, folder)
    write_chats(load_chats(data, work), data, tokenizer, plan, "", out, work)
    seconds = time.perf_counter() - started
    info = read_info(out)
    return {"seconds": seconds, "rows": info.rows, "tokens": info.tokens}


def trl(chats: Path, tokenizer: Path, folder: Path, processes: int, seq_len: int) -> dict[str, Any]:
    """Prepares with TRL."""
    from datasets import load_dataset
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    loaded = AutoTokenizer.from_pretrained(tokenizer)
    size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(loaded), **size))
    config = SFTConfig(
        output_dir=str(folder / "trl"),
        **{"assistant_only_loss": True, "packing": True, "max_length": seq_len, "dataset_num_proc": processes},
        **{"use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True},
    )
    started = time.perf_counter()
    rows = load_dataset("json", data_files=str(chats), split="train", cache_dir=str(folder / "cache"))
    trainer = SFTTrainer(model=model, args=config, train_dataset=rows, processing_class=loaded)
    seconds = time.perf_counter() - started
    packed = trainer.train_dataset
    return {"seconds": seconds, "rows": len(packed), "tokens": sum(map(len, packed["input_ids"]))}


if __name__ == "__main__":
    side, *paths, processes, seq_len = sys.argv[1:]
    print(json.dumps({"ours": ours, "trl": trl}[side](*map(Path, paths), int(processes), int(seq_len))))

"""A model goes to the Hub and comes back through ``from_pretrained``, by the real clients on both ends."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from finished_run import REPO, FinishedRun
from local_hub import LocalHub
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEXT = ["def add(a, b):", "    return a + b", "class Path:"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LOAD = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
repo, tag, expected = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(repo, revision=tag)
tokenizer = AutoTokenizer.from_pretrained(repo, revision=tag)
expected = torch.load(expected)
ids = tokenizer("def add(a, b):", return_tensors="pt").input_ids
chat = tokenizer.apply_chat_template([{"role": "user", "content": "add"}], tokenize=False)
print(json.dumps({
    "ids": torch.equal(ids, expected["ids"]),
    "logits": torch.equal(model(ids).logits, expected["logits"]),
    "chat": chat,
}))
"""


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXT, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=special[0], pad_token=special[3])
    fast.chat_template = TEMPLATE
    return fast


@pytest.fixture
def expected(tmp_path: Path) -> dict[str, torch.Tensor]:
    """Exports a tiny random model into the place of the sft's export; its logits on a line of code."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        eos_token_id=0,
        bos_token_id=None,
        pad_token_id=3,
    )
    model = LlamaForCausalLM(config).eval()
    folder = tmp_path / "run-7" / "sft" / "export"
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    ids = tokenizer(TEXT[0], return_tensors="pt").input_ids
    said = model.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=3)
    with torch.no_grad():
        return {"ids": ids, "logits": model(ids).logits, "said": said[:, ids.shape[1] :]}


def test_a_published_model_loads_back_and_is_the_same(
    expected: dict[str, torch.Tensor], hub: LocalHub, tmp_path: Path
) -> None:
    finished = FinishedRun.write(tmp_path / "run-7")
    prompt, said = expected["ids"][0].tolist(), expected["said"][0].tolist()
    path = finished.to_publish(target="hub", repo_id=REPO).write()
    torch.save(expected, tmp_path / "expected.pt")
    inherited = {key: value for key, value in os.environ.items() if key != "HF_HUB_DISABLE_XET"}
    publish = [sys.executable, "-m", "titanflow.publish.publish", str(path)]
    load = [sys.executable, "-c", LOAD, REPO, "run-7", str(tmp_path / "expected.pt")]
    finished.evaluate(greedy={"sft": {"prompt": prompt, "continuation": [*said[:-1], said[-1] ^ 1]}})
    refused = subprocess.run(publish, env=inherited, check=False, capture_output=True, text=True)
    assert refused.returncode == 1
    assert f"token 8 of the continuation is {said[-1]}, was {said[-1] ^ 1}" in refused.stderr
    assert hub.repos[REPO].tags == {}
    finished.evaluate(greedy={"sft": {"prompt": prompt, "continuation": said}})
    subprocess.run(publish, env=inherited, check=True, capture_output=True)
    hub.log.clear()  # the push downloads what arrived, too
    loaded = subprocess.run(load, env=inherited, check=False, capture_output=True, text=True)
    verify = [sys.executable, "-m", "titan.inference.verify", REPO]
    verified = subprocess.run(verify, env=inherited, check=False, capture_output=True, text=True)
    assert loaded.returncode == 0, loaded.stderr
    found = json.loads(loaded.stdout.splitlines()[-1])
    assert found == {"ids": True, "logits": True, "chat": "<|im_start|>user\nadd<|im_end|>\n"}
    assert hub.requests(f"GET /{REPO}/resolve/.*/model.safetensors") == 1
    assert verified.returncode == 0, verified.stdout + verified.stderr

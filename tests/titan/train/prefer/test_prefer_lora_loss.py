"""With adapters, losses and gradients of a stage's own model equal those of TRL and PEFT on the base's export."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from tiny_adapters import finished_base, finished_lora
from tiny_exports import tiny_args, write_byte_tokenizer
from tiny_stages import SEQ_LEN, write_pair_rows
from trl_preferences import collated, trls_trainer

from titan.export.export import export_checkpoint
from titan.export.peft_adapter import PREFIX, transformers_rows, write_peft_adapter
from titan.models.documents import keep_documents_apart
from titan.models.lora import adapted_modules
from titan.train.dataloader import collate, collate_trimmed
from titan.train.prefer.loss import answer_logps
from titan.train.prefer.pair_loss import PairLoss
from titan.train.prefer.sides import apart
from titan.weights.native import load_native
from titan.weights.stage_model import read_model
from titanflow.config.keys.training import Prefer
from titanflow.data.mixture import open_rows

pytestmark = pytest.mark.slow
PAIRS = 6
LORAS: dict[str, dict[str, Any]] = {
    "all layers": {"rank": 4, "alpha": 8.0},
    "some layers, rslora, a module whole": {
        "rank": 3,
        "alpha": 5.0,
        "rslora": True,
        "target_modules": ["wq", "wv", "w2"],
        "modules_to_save": ["norm"],
    },
}


class Stage(NamedTuple):
    """A preference stage with adapters, and its trainer in TRL; both compute the same model."""

    base: Path
    folder: Path
    trainer: Any


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished llama3, whose export has other rows of queries and keys, with its export."""
    folder = tmp_path_factory.mktemp("bases") / "llama3"
    tokenizer = write_byte_tokenizer(folder.with_name("tokenizer"))
    finished_base(folder, "llama3", tiny_args("llama3"), tokenizer=tokenizer)
    export_checkpoint(folder, folder / "export")
    return folder


@pytest.fixture(scope="module", params=LORAS.values(), ids=list(LORAS))
def stage(request: pytest.FixtureRequest, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    from peft import LoraConfig, load_peft_weights, set_peft_model_state_dict
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = tmp_path_factory.mktemp("stages") / "prefer"
    folder = finished_lora(place, base, "llama3", tiny_args("llama3"), request.param)
    adapter = write_peft_adapter(read_model(folder), folder / "adapter")
    model = AutoModelForCausalLM.from_pretrained(base / "export", dtype=torch.float32)
    config, tokenizer = LoraConfig.from_pretrained(adapter), AutoTokenizer.from_pretrained(base / "export")
    config.inference_mode = False
    trainer = trls_trainer(folder / "trl", model, None, tokenizer, peft_config=config)
    set_peft_model_state_dict(trainer.model, load_peft_weights(adapter))
    return Stage(base, folder, trainer)


@pytest.mark.parametrize("ours", [Prefer(beta=0.3), Prefer(loss="ipo")], ids=["dpo", "ipo"])
@pytest.mark.parametrize("packed", [False, True], ids=["a row each", "packed"])
def test_losses_and_gradients_equal_trls(stage: Stage, ours: Prefer, packed: bool, tmp_path: Path) -> None:
    rows = write_pair_rows(tmp_path / "pairs", PAIRS, seed=0, packed=packed)
    theirs = stage.trainer
    theirs.loss_types, theirs.loss_weights, theirs.beta = ["ipo" if ours.loss == "ipo" else "sigmoid"], [1.0], ours.beta
    theirs.model.zero_grad()
    expected = theirs.compute_loss(theirs.model, collated(_pairs(rows)))
    expected.backward()

    model, without = load_native(read_model(stage.folder)), load_native(read_model(stage.base))
    data = open_rows(rows, SEQ_LEN)
    assert (len(data) < PAIRS) == packed
    batch, labels = (collate if packed else collate_trimmed)([data.row(row) for row in range(len(data))])
    inputs, sides = apart(batch)
    tokens = inputs.pop("input")
    for one in (model, without):
        keep_documents_apart(one)
    with torch.no_grad():
        reference = torch.zeros(PAIRS, 2)
        reference[sides.pairs], _ = answer_logps(without(tokens, **inputs), labels, sides)
    summed = PairLoss(ours)
    summed.look_at(sides, reference)
    loss = summed(model(tokens, **inputs), labels) / PAIRS
    loss.backward()

    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-5)
    gradients = dict(_gradients(model, read_model(stage.folder).to_transformers))
    found = {_plain(name): one.grad for name, one in theirs.model.named_parameters() if one.requires_grad}
    assert gradients.keys() == found.keys()
    assert max(float(gradient.abs().max()) for gradient in gradients.values()) > 1e-3
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, found[name], rtol=0, atol=1e-5, msg=name)


def _plain(name: str) -> str:
    """A parameter's name in PEFT as its file of adapters has it."""
    return name.replace(".default", "").replace(".modules_to_save", "")


def _gradients(model: Any, to_transformers: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The gradient of each trained parameter by its name in PEFT, its rows in the order that they have there."""
    adapted = dict(adapted_modules(model))
    for name, module in adapted.items():
        theirs, rows = transformers_rows(name, module, to_transformers)
        yield f"{PREFIX}{theirs}.lora_A.weight", module.lora_a.grad
        yield f"{PREFIX}{theirs}.lora_B.weight", module.lora_b.grad[rows]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and name.rpartition(".")[0] not in adapted:
            ((theirs, gradient),) = to_transformers.to_hf({name: parameter.grad}).items()
            yield f"{PREFIX}{theirs}", gradient


def _pairs(folder: Path) -> list[dict[str, Any]]:
    """The pairs of a folder of prepared rows, as TRL has them."""
    names = ("tokens", "trained", "offsets", "splits")
    tokens, trained, offsets, splits = (np.load(folder / f"{name}.npy").tolist() for name in names)
    pairs = []
    for start, end, split in zip(offsets[:-1], offsets[1:], splits, strict=True):
        prompt, middle = trained.index(True, start) - start, start + split
        sides = {"chosen_ids": tokens[start + prompt : middle], "rejected_ids": tokens[middle + prompt : end]}
        pairs.append({"prompt_ids": tokens[start : start + prompt], **sides})
    return pairs

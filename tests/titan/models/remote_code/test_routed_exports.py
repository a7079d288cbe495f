"""The folders that hold the routed families: what is in them, that they compute what was trained, what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from routed_models import KINDS, family_of, router_of
from tiny_exports import POSITIONS, model_at, save_checkpoint, write_byte_tokenizer
from tiny_routed import make_native
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, pipeline

import titan.weights.hf_folder
from titan.evaluate.lm.backends import Loading, load_lm
from titan.evaluate.ranks import Ranks
from titan.export.export import compare, export_model
from titan.export.parity import TOLERANCE
from titan.models.registry import train_spec
from titanflow.architectures.remote_code import own_code
from titanflow.common.errors import ConfigError

pytestmark = pytest.mark.slow

DECODER, TOKENS = "routed_decoder.py", "routed_tokens.py"
FILES = {
    "mod": {"modeling_mod.py", DECODER, TOKENS},
    "dtf": {"modeling_dtf.py", DECODER, TOKENS, "surprise.py"},
    "tdtf": {"modeling_tdtf.py", DECODER, TOKENS, "surprise.py"},
}
EVERYWHERE = {
    "gate dropped": (DECODER, [("take(gate, indices).unsqueeze(-1).to(x.dtype) * gained", "gained")]),
    "RoPE of the gathered index": (DECODER, [("take(part, indices) for part", "part[:, :width] for part")]),
    "keys of skipped tokens": (
        DECODER,
        [
            ("width = int(is_chosen.sum(1).max())", "width = x.shape[1]"),
            ("torch.where(is_chosen, places, NOWHERE)", "places"),
            ("stable=True)", "stable=True).sort(1).values"),
        ],
    ),
    "later tokens seen": (TOKENS, [("(keys <= places[:, :, None]) & ", "")]),
}
BEFORE = {
    "the token before left out": (DECODER, [("tokens.positions == 0", "tokens.positions >= 0")]),
    "halves swapped": (DECODER, [("of_itself, of_next =", "of_next, of_itself =")]),
}
"""Mistakes of a router that looks at the token before."""
OWN = {
    "mod": {"threshold inverted": ("modeling_mod.py", [("logits > 0", "logits < 0")]), **BEFORE},
    "mod own": {"threshold inverted": ("modeling_mod.py", [("logits > 0", "logits < 0")])},
    "dtf own": {"threshold inverted": ("modeling_dtf.py", [("score > self", "score < self")])},
    "dtf": {
        **BEFORE,
        "threshold inverted": ("modeling_dtf.py", [("tokens, kept) > 0", "tokens, kept) < 0")]),
        "prior from the layer's output": ("modeling_dtf.py", [("self.prior_norm(x)", "self.prior_norm(post)")]),
        "no moving average": ("surprise.py", [("* average", "")]),
    },
    "tdtf": {
        "threshold inverted": ("modeling_tdtf.py", [("logits > 0", "logits < 0")]),
        **BEFORE,
    },
}
UNGATED = {"tdtf"}
"""What they compute isn't multiplied by anything in use."""
MUTANTS = [
    *((kind, name) for kind in FILES for name in EVERYWHERE if not (name == "gate dropped" and kind in UNGATED)),
    *((kind, name) for kind in KINDS for name in OWN[kind]),
]
"""Mistakes in the modelling files: a file, and what is written there in place of what."""


class Exported(NamedTuple):
    native: Any
    adapter: Any
    folder: Path


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    folder = tmp_path_factory.mktemp("routed")
    tokenizer = write_byte_tokenizer(folder / "tokenizer")
    made = {}
    for kind in KINDS:
        family, args, native = make_native(kind)
        checkpoint = save_checkpoint(native, folder / f"{kind}-checkpoint")
        export_model(model_at(checkpoint, family, args, tokenizer), folder / kind)
        made[kind] = Exported(native, train_spec(family).state_dict_adapter(args, None), folder / kind)
    return made


@pytest.fixture
def copied(exports: dict[str, Exported], tmp_path: Path) -> Callable[[str], Exported]:
    def copy(kind: str) -> Exported:
        shutil.copytree(exports[kind].folder, tmp_path / "mutant")
        return exports[kind]._replace(folder=tmp_path / "mutant")

    return copy


def held_out() -> np.ndarray:
    return np.random.default_rng(0).integers(4, 200, POSITIONS).astype(np.uint16)


@pytest.mark.parametrize("kind", KINDS)
def test_a_right_export_passes(exports: dict[str, Exported], kind: str) -> None:
    parity = compare(*exports[kind], held_out())

    assert parity.failures() == []
    assert parity.relative_error < 2e-5
    assert parity.positions == 2 * POSITIONS
    assert parity.changed_tensors == parity.missing == parity.unexpected == ()


@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_brings_its_modelling_files_and_names_them(exports: dict[str, Exported], kind: str) -> None:
    family, folder = family_of(kind), exports[kind].folder

    config = json.loads((folder / "config.json").read_text())

    assert {path.name for path in folder.glob("*.py")} == FILES[family]
    assert all((folder / name).read_bytes() == own_code()[name].read_bytes() for name in FILES[family])
    name = family.capitalize()
    assert config["auto_map"] == {
        "AutoConfig": f"modeling_{family}.{name}Config",
        "AutoModelForCausalLM": f"modeling_{family}.{name}ForCausalLM",
    }
    default = None if family == "tdtf" else "previous"
    assert config.get("causal_router") == router_of(kind).get("causal_router", default)
    assert (config["architectures"], config["model_type"]) == ([f"{name}ForCausalLM"], f"titanflow_{family}")
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 10_000
    read = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    assert read.to_dict()["auto_map"] == config["auto_map"]


@pytest.mark.parametrize(("kind", "name"), MUTANTS)
def test_a_mistake_in_the_modelling_file_is_caught(
    copied: Callable[[str], Exported], monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    exported = copied(kind)
    file, edits = OWN[kind].get(name) or EVERYWHERE[name]
    source = (exported.folder / file).read_text()
    for right, wrong in edits:
        assert source.count(right) == 1, right
        source = source.replace(right, wrong)
    (exported.folder / file).write_text(source)

    with pytest.raises(ConfigError, match="brings code of its own"):
        compare(*exported, held_out())
    monkeypatch.setattr(titan.weights.hf_folder, "trust_remote_code", lambda folder: True)
    parity = compare(*exported, held_out())

    assert parity.relative_error > 100 * TOLERANCE
    assert any("relative error is" in failure for failure in parity.failures())


@pytest.mark.parametrize("kind", KINDS)
def test_a_pipeline_generates_for_prompts_of_several_lengths(exports: dict[str, Exported], kind: str) -> None:
    generate = pipeline(
        "text-generation", model=str(exports[kind].folder), trust_remote_code=True, device="cpu", batch_size=3
    )
    generate.tokenizer.padding_side = "left"
    texts = ["a", "def function(value):", "import"]

    answers = [answer[0]["generated_text"] for answer in generate(texts, max_new_tokens=8)]

    assert answers == [generate(text, max_new_tokens=8)[0]["generated_text"] for text in texts]


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_loaded_is_saved_with_its_modelling_files(
    exports: dict[str, Exported], tmp_path: Path, kind: str
) -> None:
    folder = exports[kind].folder
    AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).save_pretrained(tmp_path)

    assert {path.name for path in tmp_path.glob("*.py")} == FILES[family_of(kind)]
    assert compare(exports[kind].native, exports[kind].adapter, tmp_path).failures() == []


@pytest.mark.parametrize("kind", KINDS)
def test_lm_eval_s_backend_scores_rows_together_as_alone(exports: dict[str, Exported], kind: str) -> None:
    exported = exports[kind]
    models = [load_lm(Loading(exported.folder, {}, batch_size=size, trusted=True), Ranks()) for size in (3, 1)]
    requests = [(("", ""), [0, 50, 60], [70, 80]), (("", ""), [0], [90]), (("", ""), list(range(30, 60)), [61])]

    found = [[score for score, _ in model._loglikelihood_tokens(requests, disable_tqdm=True)] for model in models]

    assert found[0] == pytest.approx(found[1], abs=2e-4)
    with torch.inference_mode():
        native = exported.native(torch.tensor([[0, 50, 60, 70]])).log_softmax(-1)[0, 2:]
    assert found[0][0] == pytest.approx((native[0, 70] + native[1, 80]).item(), abs=2e-4)


def test_nobody_is_asked_whether_to_trust_the_tokenizer(exports: dict[str, Exported]) -> None:
    assert AutoTokenizer.from_pretrained(exports["mod"].folder, trust_remote_code=False).eos_token_id == 0

"""GGUF files of tiny models, read by real llama.cpp and by transformers, and files that must not pass."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from titan.gguf import tensors, vocabulary, write
from titan.gguf.make import main
from titan.gguf.proof import gap_at, parting, prove
from titan.gguf.reference import Reference
from titan.gguf.tensors import FREQUENCIES, stored_as
from titan.gguf.write import write_gguf
from titan.weights.hf_folder import load_folder
from titanflow.common.digests import file_digest
from titanflow.common.errors import StageFailed

pytestmark = pytest.mark.slow
Exported = Callable[[str], Path]
Referenced = Callable[[str], Reference]


@pytest.mark.parametrize("name", ["llama-unscaled", "qwen2-tied", "qwen3"])
def test_transformers_reads_the_same_model_from_the_file(name: str, exported: Exported, tmp_path: Path) -> None:
    """Its reader knows no scaling of RoPE; the scaled llama is llama.cpp's alone."""
    from transformers import AutoModelForCausalLM

    folder = exported(name)
    write_gguf(folder, tmp_path / "model.gguf", "f32", name)
    expected, _ = load_folder(folder, torch.float32)
    # It takes 128 for the width of any qwen3's head.
    told = {"head_dim": expected.config.head_dim} if name.startswith("qwen3") else {}
    found = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32, **told).eval()
    tokens = torch.randint(0, 290, (2, 64), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(found(tokens).logits, expected(tokens).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "formats"),
    [
        ("llama", ["f16", "bf16", "q8_0"]),
        ("qwen2-tied", ["q8_0"]),
        ("qwen2", ["f32"]),
        ("qwen3-tied", ["f32"]),
    ],
)
def test_llama_cpp_computes_what_the_model_computes(
    name: str, formats: list[str], exported: Exported, tmp_path: Path
) -> None:
    out = tmp_path / "gguf"
    assert main([str(exported(name)), str(out), "--name", name, "--formats", *formats, "--chats", "--of", "it"]) == 0
    record = json.loads((out / "proof.json").read_text(encoding="utf-8"))
    files = {f"{name}-{kind.upper()}.gguf": kind for kind in formats}
    assert record["of"] == "it"
    assert record["files"] == {file: file_digest(out / file) for file in (*files, "Modelfile")}
    assert {path.name for path in out.iterdir()} == {*files, "Modelfile", "proof.json"}
    for file, kind in files.items():
        proof = record["proofs"][file]
        assert (proof["format"], proof["texts"], proof["conversations"], proof["positions"]) == (kind, 1000, 5, 128)
        # Only Qwen2's tokenizer brings text into NFC.
        assert (proof["composed"] > 0) is name.startswith("qwen2")
        assert proof["agreement"] > 0.9
        if kind == "f32":
            assert (proof["agreement"], proof["greedy_tokens"]) == (1, 128)
    assert list(tmp_path.iterdir()) == [out]
    text = (out / "Modelfile").read_text(encoding="utf-8")
    assert f"\nFROM ./{next(iter(files))}\n" in text
    assert '"""{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>' in text
    assert 'PARAMETER stop "<|endoftext|>"\nPARAMETER stop "<|im_end|>"\nPARAMETER num_ctx 256\n' in text


def test_the_same_folder_gives_the_same_bytes(exported: Exported, tmp_path: Path) -> None:
    for path in (tmp_path / "one.gguf", tmp_path / "two.gguf"):
        write_gguf(exported("llama"), path, "q8_0", "llama")
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()


def as_weights(change: Callable[[str, Any], tuple[str, Any] | None]) -> Callable[[pytest.MonkeyPatch], None]:
    """A writer that changes or leaves out weights."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        def weights(*arguments: Any) -> Iterator[tuple[str, Any]]:
            yield from filter(None, (change(*one) for one in tensors.weights(*arguments)))

        monkeypatch.setattr(write, "weights", weights)

    return patch


def without_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "in_order", lambda key, tensor, config: tensor)


def with_another_eps(monkeypatch: pytest.MonkeyPatch) -> None:
    read = write.read_config
    monkeypatch.setattr(write, "read_config", lambda folder: read(folder) | {"rms_norm_eps": 1e-3})


SWAPPED = {"ffn_gate": "ffn_up", "ffn_up": "ffn_gate"}
WRONG = {
    "queries and keys in transformers' order": without_order,
    "an eps of a hundred times": with_another_eps,
    "RoPE unscaled": as_weights(lambda name, value: None if name == FREQUENCIES else (name, value)),
    "gate and up swapped": as_weights(
        lambda name, value: (".".join(SWAPPED.get(part, part) for part in name.split(".")), value)
    ),
    "one row of 64 a hundredth off": as_weights(
        lambda name, value: (
            (name, value * np.where(np.arange(len(value)) == 5, 1.01, 1).astype("f4")[:, None])
            if name == "blk.1.attn_output.weight"
            else (name, value)
        )
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_file_that_computes_something_else_is_refused(
    wrong: str, exported: Exported, referenced: Referenced, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRONG[wrong](monkeypatch)
    write_gguf(exported("llama"), tmp_path / "wrong.gguf", "f32", "llama")
    with pytest.raises(StageFailed, match=r"^wrong\.gguf: llama\.cpp doesn't compute what the evaluated model"):
        prove(tmp_path / "wrong.gguf", "f32", referenced("llama"))


def test_a_file_that_fails_leaves_nothing(
    exported: Exported,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A mistake that q8_0's rounding would hide is found by the file in float32."""
    with_another_eps(monkeypatch)
    assert main([str(exported("llama")), str(tmp_path / "out"), "--name", "it", "--formats", "q8_0"]) == 1
    assert "it-F32.gguf: llama.cpp doesn't compute what the evaluated model computes" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_file_with_other_words_is_refused_with_the_text(
    exported: Exported, referenced: Referenced, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabulary, "words_name", lambda described: "llama-bpe")
    write_gguf(exported("llama"), tmp_path / "wrong.gguf", "f32", "llama")
    with pytest.raises(StageFailed) as caught:
        prove(tmp_path / "wrong.gguf", "f32", referenced("llama"))
    first, *told = str(caught.value).splitlines()
    assert first.startswith("wrong.gguf: llama.cpp makes other tokens of a text than transformers, from the ")
    ours, theirs = (json.loads(line.partition(": ")[2]) for line in told)
    assert ours[0] != theirs[0]


@pytest.mark.parametrize(
    ("written", "other", "said"),
    [
        ("im_start", "im_begin", "renders a conversation otherwise than transformers:\n    transformers: '<"),
        ("</tools>", "</tool>", "renders a conversation with tools otherwise than transformers:"),
    ],
    ids=["roles", "tools"],
)
def test_a_file_with_another_template_is_refused(
    exported: Exported,
    referenced: Referenced,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    written: str,
    other: str,
    said: str,
) -> None:
    read = vocabulary.template_of
    monkeypatch.setattr(vocabulary, "template_of", lambda folder: str(read(folder)).replace(written, other))
    write_gguf(exported("llama"), tmp_path / "wrong.gguf", "f32", "llama")
    with pytest.raises(StageFailed, match=said):
        prove(tmp_path / "wrong.gguf", "f32", referenced("llama"))


def test_a_file_that_llama_cpp_cannot_load_is_refused(
    exported: Exported, referenced: Referenced, tmp_path: Path
) -> None:
    path = tmp_path / "cut.gguf"
    write_gguf(exported("llama"), path, "f16", "llama")
    path.write_bytes(path.read_bytes()[:-4096])
    with pytest.raises(StageFailed, match=r"llama\.cpp can't load cut\.gguf"):
        prove(path, "f16", referenced("llama"))


def test_a_proof_that_computes_nothing_fails(exported: Exported, referenced: Referenced, tmp_path: Path) -> None:
    """NaN is no agreement."""
    write_gguf(exported("llama"), tmp_path / "right.gguf", "f16", "llama")
    reference = referenced("llama")
    spoilt = dataclasses.replace(reference, scores=[score * np.nan for score in reference.scores])
    with pytest.raises(StageFailed, match="doesn't compute"):
        prove(tmp_path / "right.gguf", "f16", spoilt)


@pytest.mark.parametrize(
    ("found", "place"),
    [
        ([5, 6, 7, 8], None),
        ([5, 6, 9, 8], 2),
        ([5, 6], 2),
        ([], 0),
    ],
)
def test_where_two_continuations_part(found: list[int], place: int | None) -> None:
    assert parting([5, 6, 7, 8], found, stops=(0, 2)) == place


@pytest.mark.parametrize(("found", "place"), [([5, 2], None), ([5], None), ([5, 2, 7], 1), ([5, 6, 7], 1), ([], 0)])
def test_both_must_end_at_a_stop(found: list[int], place: int | None) -> None:
    assert parting([5, 2, 7, 8], found, stops=(0, 2)) == place


def test_the_gap_between_two_choices() -> None:
    scores = np.log([[0.1, 0.2, 0.3, 0.4]])
    assert gap_at(0, [3], [2], scores, (0,)) == pytest.approx(np.log(4 / 3))
    # It ended, where the likeliest end is the token 0; and it went on behind an end.
    assert gap_at(0, [3], [], scores, (0,)) == pytest.approx(np.log(4))
    assert gap_at(0, [3], [3], scores, (3,)) == np.inf


@pytest.mark.parametrize(
    ("name", "shape", "kind", "stored"),
    [
        ("blk.0.attn_q.weight", (64, 64), "q8_0", "q8_0"),
        ("blk.0.attn_q.weight", (64, 48), "q8_0", "f16"),
        ("blk.0.attn_q.weight", (64, 48), "bf16", "bf16"),
        ("blk.0.attn_norm.weight", (64,), "q8_0", "f32"),
    ],
)
def test_the_format_of_one_tensor(name: str, shape: tuple[int, ...], kind: str, stored: str) -> None:
    assert stored_as(name, shape, kind) == stored

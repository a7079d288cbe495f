"""LoRA stages as processes: what is trained, saved, resumed, exported, and built upon."""

import json
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from tiny_adapters import finished_base
from tiny_hugging_face import write_hugging_face
from tiny_stages import MODEL, SEQ_LEN, Workbench, records, write_chat_rows
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from titan.export.export import export_checkpoint
from titan.models.registry import train_spec
from titanflow.data.prepared import PreparedRows
from titanflow.runs.checkpoints import read_contents, stored_model
from titanflow.runs.contract import PreparedData
from titanflow.runs.results import read_result

pytestmark = pytest.mark.slow

STEPS = 8
LORA = {"rank": 2, "alpha": 8.0, "dropout": 0.1, "modules_to_save": ["norm"], "peft_adapter": True}
UNDROPPED = {**LORA, "dropout": 0.0, "peft_adapter": False}
SFT = {
    "training": {"steps": STEPS},
    "validation": {"enable": True, "freq": 100, "local_batch_size": 4},
    "checkpoint": {"last_save_model_only": False},
}
TOKENS = torch.arange(SEQ_LEN)[None] * 3


@pytest.fixture(scope="module")
def workbench(tmp_path_factory, shared_data):
    """A workbench whose stage ``base`` is finished, and exported."""
    bench = Workbench(tmp_path_factory.mktemp("lora"), shared_data)
    args = replace(train_spec("llama3").model_args["debugmodel"], max_seq_len=SEQ_LEN, **MODEL)
    base = finished_base(bench.folder / "base", "llama3", args, config={"training": {"seq_len": SEQ_LEN}})
    export_checkpoint(base, base / "export", shared_data / "tokenizer")
    return bench


def stage(bench, name, lora, *configs, base="base", train=None, **fields):
    data = PreparedData(train=train or bench.data / "chats", validation=bench.data / "validation")
    return bench.stage(
        name, SFT, {"lora": lora}, *configs, stage="sft", base=bench.folder / base, model_overrides={}, data=data,
        **fields,
    )  # fmt: skip


def log_of(run):
    return (run.folder / "log.txt").read_text()


@pytest.fixture(scope="module")
def trained(workbench):
    """A LoRA stage, trained in one go by one process."""
    run = stage(workbench, "trained", LORA, tokenizer=workbench.data / "tokenizer")
    assert workbench.run(run) == 0, log_of(run)
    return run


def test_only_adapters_and_saved_modules_are_trained_and_the_log_says_so(trained):
    result = read_result(trained.folder)
    log = log_of(trained)
    assert result.parameters == 164_160
    per_layer = 2 * (4 * (64 + 64) + 2 * (64 + 256) + (256 + 64))
    assert result.trainable_parameters == 2 * per_layer + 64
    assert f"{result.trainable_parameters:,} trainable parameters, {result.trainable_parameters / 164_160:.2%}" in log
    assert "adapters in 2× attention.wq, " in log
    assert "; whole: norm" in log


def test_the_checkpoint_holds_what_was_trained_and_is_a_few_percent_of_the_bases(trained, workbench):
    path = read_result(trained.folder).checkpoint
    stored, base = stored_model(path), stored_model(read_result(workbench.folder / "base").checkpoint)
    assert {key.rpartition(".")[2] for key in stored if key != "norm.weight"} == {"lora_a", "lora_b"}
    sizes = [sum(torch.Size(shape).numel() for shape in part.values()) for part in (stored, base)]
    assert sizes[0] == read_result(trained.folder).trainable_parameters
    assert sizes[0] < 0.05 * sizes[1]
    kept = {key for key in read_contents(path).shapes if key.startswith("optimizer.state.")}
    assert {key.removeprefix("optimizer.state.").rpartition(".")[0] for key in kept} == set(stored)


def trained_loss(model, folder):
    """The mean loss over the trained tokens of prepared rows."""
    rows = PreparedRows.open(folder, SEQ_LEN)
    tokens, labels = (
        torch.stack(column)
        for column in zip(*[map(torch.tensor, rows.row(i)[:2]) for i in range(len(rows))], strict=True)
    )
    with torch.inference_mode():
        return cross_entropy(model(tokens).logits.flatten(0, 1), labels.flatten()).item()


def test_what_is_trained_on_becomes_likelier(trained, workbench):
    exports = workbench.folder / "base" / "export", read_result(trained.folder).export
    models = [AutoModelForCausalLM.from_pretrained(export, dtype=torch.float32) for export in exports]
    before, after = (trained_loss(model, workbench.data / "chats") for model in models)
    assert after < before - 0.05


def test_merged_export_and_peft_on_the_bases_export_give_the_same_logits(trained, workbench):
    result = read_result(trained.folder)
    base = AutoModelForCausalLM.from_pretrained(workbench.folder / "base" / "export", dtype=torch.float32)
    merged = AutoModelForCausalLM.from_pretrained(result.export, dtype=torch.float32)
    with torch.inference_mode():
        before, expected = base(TOKENS).logits, merged(TOKENS).logits
        found = PeftModel.from_pretrained(base, result.adapter).eval()(TOKENS).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (before - expected).abs().max() > 1e-2
    assert json.loads((result.adapter / "adapter_config.json").read_text())["modules_to_save"] == ["model.norm"]


def test_resumed_it_has_the_losses_of_the_uninterrupted_run(workbench, trained):
    run = stage(workbench, "resumed", LORA, {"training": {"steps": 3}})
    assert workbench.run(run) == 0, log_of(run)
    (run.folder / "result.json").unlink()
    run.config["training"]["steps"] = STEPS
    run.write()
    assert workbench.run(run) == 0, log_of(run)
    assert "Training starts at step 4" in log_of(run)
    assert records(run) == records(trained)
    assert read_result(run.folder).validation_loss == read_result(trained.folder).validation_loss


PARALLEL = {
    "fsdp": {"training": {"local_batch_size": 4}},
    "ddp": {
        "training": {"local_batch_size": 4},
        "parallelism": {"data_parallel_replicate_degree": 2, "data_parallel_shard_degree": 1},
    },
    "tp": {"parallelism": {"tensor_parallel_degree": 2}},
}


@pytest.fixture(scope="module")
def undropped(workbench, trained):
    """What two ranks are compared with: without dropout, whose masks no two ranks share."""
    run = stage(workbench, "undropped", UNDROPPED, {"training": {"steps": 4}}, base="trained")
    assert workbench.run(run) == 0, log_of(run)
    return run


@pytest.mark.parametrize("parallelism", PARALLEL.values(), ids=list(PARALLEL))
def test_two_ranks_have_the_losses_and_gradients_of_one_process(workbench, trained, undropped, parallelism, request):
    """On top of a LoRA stage, whose adapters each rank merges into its own part of the weights."""
    config = {"training": {"steps": 4}}
    run = stage(workbench, request.node.callspec.id, UNDROPPED, config, parallelism, base="trained")
    assert workbench.run(run, ranks=2) == 0, log_of(run)
    assert records(run) == pytest.approx(records(undropped), abs=1e-5)
    assert records(run, "grad_norm") == pytest.approx(records(undropped, "grad_norm"), rel=1e-4)


def test_an_sft_on_top_starts_from_the_merged_model(workbench, trained):
    run = stage(workbench, "on-top", {}, {"training": {"steps": 1}, "optimizer": {"lr": 0.0}}, base="trained")
    assert workbench.run(run) == 0, log_of(run)
    result, base = read_result(run.folder), read_result(trained.folder)
    assert result.validation_loss == pytest.approx(base.validation_loss, abs=1e-5)
    assert result.trainable_parameters is None
    assert result.adapter is None
    exported = [AutoModelForCausalLM.from_pretrained(one.export).state_dict() for one in (result, base)]
    for key, value in exported[0].items():
        torch.testing.assert_close(value, exported[1][key], rtol=0, atol=1e-6)


def test_on_packed_rows_two_ranks_have_the_losses_of_one_process(workbench):
    """Adapters and attention that keeps documents apart are two converters of one model."""
    chats = write_chat_rows(workbench.folder / "packed", 120, seed=3, packed=True)
    training = {"steps": 3, "local_batch_size": 2, "global_batch_size": 4}
    settings = {"training": training, "data": {"packing": "best_fit"}, "validation": {"enable": False}}
    losses = []
    for name, ranks in (("packed-one", None), ("packed-two", 2)):
        run = stage(workbench, name, UNDROPPED, settings, train=chats)
        assert workbench.run(run, ranks) == 0, log_of(run)
        assert run.config["data"]["packing"] == "best_fit"
        losses.append(records(run))
    assert list(losses[0]) == [1, 2, 3]
    assert losses[1] == pytest.approx(losses[0], abs=1e-6)


def test_on_a_base_in_transformers_format_peft_and_merged_export_agree(workbench):
    base = workbench.folder / "hugging-face"
    write_hugging_face(base, "Qwen3ForCausalLM", tie_word_embeddings=True)
    lora = {"rank": 2, "alpha": 8.0, "rslora": True, "peft_adapter": True, "target_modules": ["wq", "wv", "w2"]}
    settings = {"training": {"steps": 3}, "optimizer": {"lr": 1e-2}, "validation": {"enable": False}}
    settings["model"] = {"name": "qwen3", "flavor": "debugmodel"}
    run = stage(workbench, "on-hugging-face", lora, settings, base=base, tokenizer=base)
    assert workbench.run(run) == 0, log_of(run)
    result = read_result(run.folder)
    merged = AutoModelForCausalLM.from_pretrained(result.export, dtype=torch.float32)
    loaded = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.inference_mode():
        expected = merged(TOKENS).logits
        before = loaded(TOKENS).logits
        found = PeftModel.from_pretrained(loaded, result.adapter).eval()(TOKENS).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert (before - expected).abs().max() > 1e-3

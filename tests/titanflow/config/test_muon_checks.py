"""What the plan says of Muon: where it can't work, and what its keys are."""

import pytest

from titanflow.config.checks.module import check_module, overruled

MUON = "pretrain.optimizer.name=Muon"


def test_muon_and_its_keys_are_taken(write, load) -> None:
    settings = (MUON, "pretrain.optimizer.muon_lr=0.01", "pretrain.optimizer.muon_adjust_lr_fn=original")
    module = load(write(), *settings).modules["pretrain"]
    assert check_module(module) == []
    assert module.config["optimizer"]["muon_lr"] == 0.01
    assert not any("muon" in line for line in overruled(module))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["optimizer.early_step_in_backward=true"], "found true, with optimizer.name: Muon"),
        (["training.enable_cpu_offload=true"], "training.enable_cpu_offload: found true, with optimizer.name: Muon"),
        (["optimizer.muon_ns_steps=0"], "pretrain.optimizer.muon_ns_steps"),
        (["optimizer.muon_momentum=1"], "pretrain.optimizer.muon_momentum"),
        (["optimizer.muon_adjust_lr_fn=rms"], "pretrain.optimizer.muon_adjust_lr_fn"),
    ],
)
def test_what_muon_cant_be_used_with_is_refused(write, mistakes, settings: list[str], told: str) -> None:
    assert told in mistakes(write(), MUON, *(f"pretrain.{one}" for one in settings))


def test_another_spelling_leads_to_it(write, mistakes) -> None:
    message = mistakes(write(), "pretrain.optimizer.name=muon")
    assert "pretrain.optimizer.name: found 'muon'" in message
    assert "did you mean Muon?" in message


def test_adapters_of_rank_1_leave_it_nothing(write, mistakes) -> None:
    path = write()
    message = mistakes(path, "sft.optimizer.name=Muon", "sft.lora.rank=1")
    assert "sft.optimizer.name: found Muon, and the stage trains no matrix of a layer" in message
    assert "an adapter of rank 1 is two vectors" in message


def test_adapters_outside_the_layers_leave_it_nothing_whatever_their_rank(write, mistakes, load) -> None:
    settings = ("sft.optimizer.name=Muon", "sft.lora.rank=4")
    message = mistakes(write(), *settings, "sft.lora.target_modules=[output]")
    assert "sft.optimizer.name: found Muon, and the stage trains no matrix of a layer" in message
    assert "lora.target_modules names nothing in a layer" in message
    assert "rank 1" not in message
    load(write(), *settings, "sft.lora.target_modules=[output, wq]")


def test_keys_without_muon_have_no_effect(write, load) -> None:
    module = load(write(), "pretrain.optimizer.muon_lr=0.01").modules["pretrain"]
    (told,) = [line for line in overruled(module) if "muon_lr" in line]
    assert "has no effect: optimizer.name is AdamW, not Muon" in told


def test_a_model_that_cannot_be_built_is_named_alone(write, mistakes) -> None:
    message = mistakes(write(), MUON, "pretrain.model.n_heads=0")
    assert "pretrain.model.n_heads: found 0" in message
    assert "Muon" not in message

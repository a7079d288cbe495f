"""Each patch's reason, tried against torchtitan as installed: when one of these fails, the patch can go."""

import dataclasses
import subprocess
import sys
import textwrap

import pytest
import torch

from titan.patches import PatchContext, all_patches, apply_patches
from titanflow.common.errors import ConfigError

on_a_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def in_a_new_process(code):
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_each_patch_says_what_and_why_in_a_file_of_its_own():
    patches = all_patches()
    assert [patch.name for patch in patches] == [
        "late_compile",
        "late_datasets",
        "cpu_device",
        "experts_on_cpu",
        "deepseek_args",
        "deepseek_yarn",
        "llama4_adapter",
        "peak_flops",
        "lone_checkpoint",
        "tied_fsdp",
        "train_spec",
    ]
    for patch in patches:
        assert patch.target.startswith("torchtitan.")
        assert len(patch.why) > 40
        assert patch.what
        assert patch.versions == "==0.2.2"
        assert patch.needed.__module__ == f"titan.patches.{patch.name}"


def test_the_registry_imports_no_torch():
    assert in_a_new_process("import sys, titan.patches as p; p.all_patches(); print('torch' in sys.modules)") == [
        "False"
    ]


def test_whoever_asks_for_a_family_may_be_building_models_without_weights_and_drawing_numbers():
    before, after = in_a_new_process(
        """
        import torch
        from titan.models.registry import train_spec
        torch.manual_seed(7)
        with torch.device("meta"):
            train_spec("qwen3")
        drawn = torch.rand(1).item()
        torch.manual_seed(7)
        print(drawn, torch.rand(1).item())
        """
    )
    assert before == after


@on_a_cpu
def test_cpu_device_is_needed_and_mends_what_torchtitan_asks_of_a_device():
    before, after, name, barrier = in_a_new_process(
        """
        import os
        from titan.patches import apply_patches, cpu_device
        import torchtitan.components.metrics as metrics
        from torchtitan.distributed import utils
        print(utils.device_type)
        assert cpu_device.needed()
        for missing in ("get_device_name", "get_device_properties", "memory_stats", "empty_cache"):
            import torch
            assert not hasattr(torch.cpu, missing), missing
        apply_patches(["cpu_device"])
        apply_patches(["cpu_device"])
        print(utils.device_type)
        monitor = metrics.DeviceMemoryMonitor("cpu")
        assert monitor.device_capacity > 0
        assert monitor.get_peak_stats().max_reserved_gib > 0
        print(bool(monitor.device_name))
        import torch.distributed as dist
        dist.init_process_group("gloo", init_method="tcp://127.0.0.1:0", rank=0, world_size=1)
        dist.barrier(device_ids=[utils.device_module.current_device()])
        try:
            dist.barrier(device_ids=[torch.cpu.current_device()])
        except TypeError:
            print("refused")
        """
    )
    assert (before, after, name, barrier) == ("cuda", "cpu", "True", "refused")


@on_a_cpu
def test_a_cpus_peak_is_not_that_of_the_process_that_started_the_training():
    code = """
        from titan.patches.cpu_device import make_device_module
        print(make_device_module().memory_stats()["reserved_bytes.all.peak"])
        """
    (alone,) = in_a_new_process(code)
    held = b"1" * (int(alone) + (64 << 20))
    assert int(in_a_new_process(code)[0]) < len(held)


def test_an_unknown_device_counts_as_an_a100_without_the_patch():
    patch = next(patch for patch in all_patches() if patch.name == "peak_flops")
    assert patch.needed()


@on_a_cpu
def test_a_cpu_has_no_peak_and_an_a100_keeps_its_own():
    from torchtitan.tools import utils

    from titan.patches.peak_flops import known_peak

    assert utils.get_peak_flops("anything") != utils.get_peak_flops("anything")
    assert known_peak("NVIDIA A100-SXM4-80GB", 312e12) == 312e12
    assert known_peak("NVIDIA H100", 989e12) == 989e12
    assert known_peak("NVIDIA T4", 312e12) != 312e12


def test_torchtitan_refuses_a_second_spec_of_the_same_name():
    patch = next(patch for patch in all_patches() if patch.name == "train_spec")
    assert patch.needed()
    assert patch.needed()


def test_the_spec_of_one_model_is_adapted_and_the_others_are_not(monkeypatch):
    from torchtitan.protocols import train_spec

    upstream = train_spec.get_train_spec
    monkeypatch.setattr(train_spec, "get_train_spec", upstream)
    original = upstream("llama3")

    def adapt(spec):
        return dataclasses.replace(spec, model_args={"mine": spec.model_args["debugmodel"]})

    apply_patches(["train_spec"], PatchContext("llama3", adapt))
    assert set(train_spec.get_train_spec("llama3").model_args) == {"mine"}
    assert train_spec.get_train_spec("qwen3") == upstream("qwen3")
    assert upstream("llama3").model_args is original.model_args
    apply_patches(["train_spec"], PatchContext("qwen3", adapt))
    assert "8B" in train_spec.get_train_spec("llama3").model_args


def test_a_torchtitan_that_a_patch_does_not_know_is_refused():
    patch = dataclasses.replace(all_patches()[0], versions=">=0.3,<0.4")
    with pytest.raises(ConfigError, match=r"torchtitan 0\.2\.2 is installed, and the patch 'late_compile'"):
        patch.check_version()


def test_an_unknown_patch_is_refused():
    with pytest.raises(ConfigError, match="no such patch: nonsense"):
        apply_patches(["nonsense"])

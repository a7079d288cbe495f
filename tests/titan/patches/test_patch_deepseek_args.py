import subprocess
import sys
import textwrap


def test_arguments_that_no_job_config_touched_still_build_no_model_without_the_patch() -> None:
    code = """
        import dataclasses
        import torch
        from titan.patches import apply_patches
        from titan.patches.deepseek_args import PATCH
        assert PATCH.needed()
        apply_patches(["cpu_device", "deepseek_args"])
        assert not PATCH.needed()
        from torchtitan.protocols.train_spec import get_train_spec
        spec = get_train_spec("deepseek_v3")
        args = dataclasses.replace(spec.model_args["debugmodel"], n_layers=2)
        assert "moe_impl" not in dataclasses.asdict(args)
        with torch.device("meta"):
            spec.model_cls(args)
        args.moe_impl = "deepep"
        assert spec.model_args["debugmodel"].moe_impl == "standard"
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr

"""What torchtitan compiles as it is imported, and when it does with the patch."""

from test_patches import in_a_new_process


def test_the_compiler_is_imported_for_models_that_compile_alone_and_compiles_the_same():
    assert in_a_new_process(
        """
        import importlib, sys
        import torch
        from titan.patches import apply_patches

        COMPILER, ATTENTION = "torch._inductor.compile_fx", "torchtitan.models.attention"
        asked, compile_now = [], torch.compile

        def record(function, **options):
            asked.append((function.__name__, options))
            return function

        # Now: torchtitan with the patch, which no model has asked to compile.
        apply_patches(["late_compile", "cpu_device"])
        apply_patches(["late_compile"])
        import torchtitan.train
        print("patched", COMPILER in sys.modules)
        assert torch.compile is compile_now
        torch.compile = record
        # A module that has looked torch.compile up keeps it: so does the patch.
        del sys.modules[ATTENTION]
        apply_patches(["late_compile"])
        attention = sys.modules[ATTENTION]
        assert asked == []
        for _ in range(2):
            assert attention.FlexAttentionWrapper()._compiled_flex_attn.__name__ == "flex_attention"
            attention.VarlenAttentionWrapper()
            mask = attention.create_attention_mask(lambda b, h, q, k: q >= k, 1, 1, 16, 16, device="cpu")
            assert mask.shape == (1, 1, 16, 16)
        late = sorted(asked, key=lambda one: one[0])
        # As torchtitan does by itself.
        asked.clear()
        del sys.modules[ATTENTION]
        importlib.import_module(ATTENTION)
        assert sorted(asked, key=lambda one: one[0]) == late, (asked, late)
        print(len(late))
        torch.compile = compile_now
        del sys.modules[ATTENTION]
        importlib.import_module(ATTENTION)
        print("itself", COMPILER in sys.modules)
        """
    ) == ["patched", "False", "3", "itself", "True"]

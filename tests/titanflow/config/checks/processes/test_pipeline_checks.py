"""What torchtitan and torch refuse of a pipeline once each rank has built its model."""

import itertools

import pytest

from titanflow.config.checks.processes.pipeline_cut import check_cut, stage_layers
from titanflow.config.module import Module

SCHEDULE = "parallelism.pipeline_parallel_schedule"
MICROBATCH = "parallelism.pipeline_parallel_microbatch_size"
FIRST, LAST = (f"parallelism.pipeline_parallel_{end}_stage_less_layers" for end in ("first", "last"))
EACH = "parallelism.pipeline_parallel_layers_per_stage"


def pipeline(ranks: int, *settings: str) -> list[str]:
    given = [f"launcher.nproc_per_node={ranks}", f"parallelism.pipeline_parallel_degree={ranks}", *settings]
    return [f"pretrain.{setting}" for setting in given]


@pytest.mark.parametrize(
    ("ranks", "layers", "settings"),
    [
        (2, 2, []),
        (2, 6, [f"{SCHEDULE}=Interleaved1F1B"]),
        (2, 6, [f"{EACH}=4"]),
        (2, 6, [f"{EACH}=2", f"{SCHEDULE}=Interleaved1F1B"]),
        (2, 2, [f"{MICROBATCH}=16"]),
        (4, 6, ["training.local_batch_size=2", f"{SCHEDULE}=GPipe"]),
        (2, 2, ["validation.enable=true", "validation.local_batch_size=64", "training.global_batch_size=-1"]),
        (2, 2, ["validation.enable=true", "validation.local_batch_size=16", "training.global_batch_size=16"]),
        (4, 14, ["training.local_batch_size=10", f"{SCHEDULE}=interleaved1f1b"]),
    ],
)
def test_a_pipeline_that_torch_can_make(write, load, ranks: int, layers: int, settings: list[str]) -> None:
    load(write(), *pipeline(ranks, *settings), f"pretrain.model.n_layers={layers}")


@pytest.mark.parametrize(
    ("ranks", "layers", "settings", "expected"),
    [
        (2, 2, [f"{MICROBATCH}=3"], "found 3, and a rank takes 32 rows at a time"),
        (2, 2, [f"{MICROBATCH}=0"], "found 0 (int)"),
        (2, 2, [f"{MICROBATCH}=32"], "1 microbatches of 32, and 1F1B needs 2, one a stage"),
        (4, 6, ["training.local_batch_size=2"], "expected: at least 4"),
        (2, 1, [f"{SCHEDULE}=Interleaved1F1B"], "cuts 3 layers (embedding and output counted) into 4 stages"),
        (4, 14, ["training.local_batch_size=9", f"{SCHEDULE}=Interleaved1F1B"], "in 2 equal rounds"),
        (2, 7, [f"{EACH}=3"], "cuts 9 layers into 3 stages"),
        (2, 6, [f"{EACH}=2"], "cuts 8 layers into 4 stages, 2 a rank"),
        (2, 6, [f"{EACH}=4", f"{SCHEDULE}=Interleaved1F1B"], "expected: two or more a rank"),
        (2, 2, ["optimizer.early_step_in_backward=true"], "can't step in a pipeline's backward pass"),
        (2, 2, [f"{SCHEDULE}=PipelineScheduleMulti"], "an abstract class of torch's"),
        (
            2,
            2,
            ["validation.local_batch_size=16", "validation.enable=true", "validation.dataset=c4_test"],
            "validation.local_batch_size: found 16, and the pipeline cuts each batch into 32 microbatches",
        ),
        (2, 2, ["parallelism.pipeline_parallel_schedule_csv=nowhere.csv"], "no such file: nowhere.csv"),
    ],
)
def test_a_pipeline_that_torch_refuses(
    write, mistakes, ranks: int, layers: int, settings: list[str], expected: str
) -> None:
    message = mistakes(write(), *pipeline(ranks, *settings), f"pretrain.model.n_layers={layers}")
    assert expected in message
    assert "--set pretrain." in message or "pretrain.yaml:4: pretrain.training.local_batch_size" in message


PARTS = "parallelism.module_fqns_per_model_part"
MUON = "optimizer.name=Muon"


def test_the_cut_is_torchtitans_own() -> None:
    from torchtitan.distributed.pipeline_parallel import generate_llm_fqn_per_model_part as generate

    tried, refused = 0, 0
    for layers, stages, first, last in itertools.product((1, 2, 3, 5, 8), (2, 3, 4), (0, 1, 2), (0, 1, 3)):
        module = Module("pretrain", "pretrain", "torchtitan", {}, {}, model_args={"n_layers": layers})
        module.config["parallelism"] = {
            "module_fqns_per_model_part": None,
            "pipeline_parallel_layers_per_stage": None,
            "pipeline_parallel_degree": stages,
            "pipeline_parallel_schedule": "1F1B",
            "pipeline_parallel_first_stage_less_layers": first,
            "pipeline_parallel_last_stage_less_layers": last,
        }
        try:
            cut = generate(stages, layers, first, last)
        except ValueError:
            assert check_cut(module)
            refused += 1
            continue
        assert check_cut(module) == []
        assert stage_layers(module) == [sum(name.startswith("layers.") for name in part) for part in cut]
        tried += 1
    assert tried > 50
    assert refused > 50


@pytest.mark.parametrize(
    "settings",
    [
        ["model.n_layers=2"],
        # Stages of 4 and 3: the embedding counts as 3 layers of the first, the output as one of the last.
        ["model.n_layers=3", f"{FIRST}=3", f"{LAST}=1"],
        ["model.n_layers=2", f"{PARTS}=[[tok_embeddings, layers.0], [layers.1, norm, output]]"],
    ],
)
def test_muon_steps_a_pipeline_with_a_layer_in_each_stage(write, load, settings: list[str]) -> None:
    load(write(), *pipeline(2, MUON, *settings))


@pytest.mark.parametrize(
    "settings",
    [
        ["model.n_layers=2", f"{PARTS}=[[tok_embeddings], [layers.0, layers.1, norm, output]]"],
        ["model.n_layers=2", f"{FIRST}=2", f"{LAST}=0"],
    ],
)
def test_muon_is_refused_where_a_stage_has_no_layer(write, mistakes, load, settings: list[str]) -> None:
    message = mistakes(write(), *pipeline(2, MUON, *settings))
    assert "pretrain.optimizer.name: found Muon, and stage 0 of the pipeline has no layer" in message
    load(write(), *pipeline(2, *settings))


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ("[[tok_embeddings, layers.0], [layers.1, norm], [output]]", "expected: a multiple of 2 stages"),
        ("[[tok_embeddings], [layers.0], [layers.1], [norm, output]]", "found 4 stages, 2 a rank"),
        ("[]", "expected: one a rank"),
        ("[[tok_embeddings, layers.0], [norm, output]]", "no stage has layers.1"),
        ("[[tok_embeddings, layers.0, layers.1], [layers.1, norm, output]]", "found layers.1 twice"),
        ("[[tok_embeddings, layers.0], [layers.1, norm, lm_head]]", "found 'lm_head', which the model lacks"),
        ("[[tok_embeddings, layers.1], [layers.0, norm, output]]", "aren't in the model's order"),
    ],
)
def test_stages_by_name_hold_the_model_once(write, mistakes, parts: str, expected: str) -> None:
    message = mistakes(write(), *pipeline(2, "model.n_layers=2", f"{PARTS}={parts}"))
    assert expected in message
    assert f"pretrain.{PARTS}: " in message


def test_too_many_stages_are_one_mistake(write, mistakes) -> None:
    message = mistakes(write(), *pipeline(8, "model.n_layers=4", "training.local_batch_size=2", MUON))
    assert message.count("expected: ") == 1
    assert "cuts 6 layers (embedding and output counted) into 8 stages" in message

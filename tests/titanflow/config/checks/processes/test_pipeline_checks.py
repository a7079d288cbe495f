"""What torchtitan and torch refuse of a pipeline once each rank has built its model."""

import pytest

SCHEDULE = "parallelism.pipeline_parallel_schedule"
MICROBATCH = "parallelism.pipeline_parallel_microbatch_size"
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

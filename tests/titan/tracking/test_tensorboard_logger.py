import numpy as np
from recorded import expected_rows
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from titan.tracking.tensorboard_logger import TensorBoardLogger


def scalars(folder):
    """(Name, step) → value, as TensorBoard reads a folder."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    found = [
        ((name, event.step), event.value)
        for name in accumulator.Tags()["scalars"]
        for event in accumulator.Scalars(name)
    ]
    assert len(dict(found)) == len(found), "a step stands there twice"
    return dict(found)


def test_a_killed_training_is_there_without_gap_or_repeat_under_wandbs_names(killed):
    expected = {
        (name, step): np.float32(value) for step, row in expected_rows(killed).items() for name, value in row.items()
    }
    assert scalars(killed.folder / "tb") == expected


def test_a_tensorboard_that_is_open_forgets_what_a_resume_takes_back(tmp_path):
    first = TensorBoardLogger(tmp_path)
    first.begin({})
    for step in range(1, 6):
        first.log({"train/loss": float(step)}, step)
    first.close()
    accumulator = EventAccumulator(str(tmp_path))
    accumulator.Reload()
    again = TensorBoardLogger(tmp_path)
    again.begin({step: {"train/loss": float(step)} for step in (1, 2, 3)})
    again.log({"train/loss": 40.0}, 4)
    again.complete()
    accumulator.Reload()
    assert [event.value for event in accumulator.Scalars("train/loss")] == [1.0, 2.0, 3.0, 40.0]
    assert len(list(tmp_path.iterdir())) == 2
    assert scalars(tmp_path) == {
        ("train/loss", step): value for step, value in ((1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0))
    }

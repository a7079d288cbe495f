import pytest
from stage_configs import stage_config

from titanflow.planning.forecast.device import DeviceSpec
from titanflow.planning.forecast.duration import CORE_FLOPS, START_UP, UTILISATION, estimated, measured_duration
from titanflow.planning.forecast.flops import Counts
from titanflow.planning.forecast.history import Measured
from titanflow.planning.forecast.layout import Layout

COUNTS = Counts(parameters=10, trained=10, flops_per_token=10**9)
HALF = {"mixed_precision_param": "bfloat16"}


def test_the_rest_of_a_measured_training() -> None:
    found = measured_duration(Measured("run a", 100.0, 20.0, 2.0, 150.0, 80.0), steps=10, tokens=2000)
    assert (found.seconds, found.tokens, found.tokens_per_second) == (40.0, 1500, 80.0)
    assert found.source == "measured on run a"


def test_rows_are_no_longer_than_seq_len() -> None:
    found = measured_duration(Measured("run a", None, None, 1.0, 300.0, 80.0), steps=10, tokens=2000)
    assert (found.seconds, found.tokens) == (10.0 + START_UP, 2000)


def test_the_cores_of_a_cpu_are_shared_by_its_ranks() -> None:
    layout = Layout.of(stage_config(launcher={"nproc_per_node": 2}))
    found = estimated(COUNTS, 1000, layout, DeviceSpec("cpu", "", None, cores=4))
    assert found is not None
    assert found.seconds == pytest.approx(10**12 / (4 * CORE_FLOPS) + START_UP)
    assert found.source.startswith("rough")


def test_a_known_gpu() -> None:
    layout = Layout.of(stage_config(launcher={"nproc_per_node": 8}, training=HALF))
    found = estimated(COUNTS, 10**9, layout, DeviceSpec("cuda", "NVIDIA H100 80GB HBM3"))
    assert found is not None
    assert found.seconds == pytest.approx(10**18 / (8 * UTILISATION * 989e12) + START_UP)
    assert found.source == "from peak FLOPs at 40%"


@pytest.mark.parametrize(("name", "training"), [("NVIDIA GeForce RTX 4090", HALF), ("NVIDIA H100", {})])
def test_no_time_is_guessed(name: str, training: dict[str, str]) -> None:
    """Of a GPU whose peak isn't known, and in fp32, of which the peak isn't."""
    assert estimated(COUNTS, 1000, Layout.of(stage_config(training=training)), DeviceSpec("cuda", name)) is None

from titanflow.planning.forecast.device import DeviceSpec, cpu, parse_gpus
from titanflow.planning.forecast.forecasts import UNKNOWN_GPU, _visible


def test_what_nvidia_smi_answers() -> None:
    answer = "NVIDIA H100 80GB HBM3, 81559\nNVIDIA A100-SXM4-40GB, 40960\nNVIDIA GB10, [N/A]\n"
    first, second, third = parse_gpus(answer)
    assert first == DeviceSpec("cuda", "NVIDIA H100 80GB HBM3", 81559 << 20)
    assert (first.peak_flops, second.peak_flops, third.peak_flops) == (989e12, 312e12, None)
    assert third.memory is None
    assert parse_gpus("No devices were found\n") == ()


def test_which_gpus_are_visible() -> None:
    gpus = parse_gpus("A100, 40960\nH100, 81559\n")
    assert _visible(gpus, None) == gpus
    assert _visible(gpus, "1") == gpus[1:]
    assert _visible(gpus, "GPU-8a6f") == gpus
    assert _visible(gpus, "5") == gpus
    assert UNKNOWN_GPU.memory is None


def test_this_machine() -> None:
    assert cpu().cores >= 1
    assert cpu().peak_flops is None

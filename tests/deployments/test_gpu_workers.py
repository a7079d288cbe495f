import pytest

from deployments.gpu_workers import gpu_shares
from titanflow.common.errors import ConfigError
from titanflow.config.device import Device


def test_each_worker_sees_one_gpu():
    assert gpu_shares(Device("cuda", 2), {}) == {
        "-gpu0": {"CUDA_VISIBLE_DEVICES": "0"},
        "-gpu1": {"CUDA_VISIBLE_DEVICES": "1"},
    }


def test_only_the_gpus_that_serve_itself_sees_are_given_out():
    shares = gpu_shares(Device("cuda", 2), {"CUDA_VISIBLE_DEVICES": "5, 3"})
    assert [share["CUDA_VISIBLE_DEVICES"] for share in shares.values()] == ["5", "3"]


@pytest.mark.parametrize("machine", [Device("cpu", found="this machine has no GPU"), Device("cuda", found="/dev")])
def test_without_gpus_to_count_it_says_what_to_do(machine):
    with pytest.raises(ConfigError, match="--one-worker-per-gpu: no GPU to count"):
        gpu_shares(machine, {})

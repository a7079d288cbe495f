from dataclasses import asdict
from typing import Any

import pytest

from titanflow.common.errors import ConfigError
from titanflow.config.checks.processes.slurm import slurm_problems
from titanflow.config.keys.launcher import Launcher


def found(device: str = "auto", processes: int = 8, **settings: Any) -> list[str]:
    launcher = asdict(Launcher()) | {"kind": "slurm", "device": device, "nproc_per_node": processes}
    launcher["slurm"] |= settings
    return [f"{key}: {message}" for key, message, *_ in slurm_problems(launcher)]


@pytest.mark.parametrize(
    "option",
    [
        *("--exclusive", "--cpus-per-task=8", "-c8", "-H", "-HQc8", "-x node7", "--mem-per-cpu=2G", "--time-min=1:00"),
        *("--gpus-per-node=8", "--gres-flags=enforce-binding", "--wait-all-nodes=1", "--nodelist=a[1-2]", "--no-kill"),
        *("--reservation=tuesday", "--hint=nomultithread", "--comment=a b", "--nice", "--export-file=3"),
    ],
)
def test_an_option_that_the_job_leaves_alone_is_taken(option: str) -> None:
    assert found(extra=[option]) == []


@pytest.mark.parametrize(
    "option",
    [
        *("--nodes=3", "--output=/x", "--export=ALL", "--requeue", "--array=1-4", "--dependency=afterok:1", "--wrap=x"),
        # sbatch takes the beginning of an option's name for the whole, and several short ones in one word.
        *("--out=/x", "--arr=1-2", "--requ", "--dep=singleton", "--sig=INT", "-N3", "-HN3", "-o/x", "-a1-2", "-W"),
        # More tasks than nodes, jobs of another cluster, and no job at all.
        *("--ntasks=5", "-n5", "--ntasks-per-gpu=1", "--tasks-per-node=2", "--clusters=other", "-Mother"),
        *("--test-only", "--version", "-V", "--usage", "-h", "--help"),
        *("--time=1:00", "-t1", "--partition=gpu", "-pgpu", "--acc=lab", "-Qqhigh", "--mem=1G", "--gres=gpu:1", "-Ca"),
        *("--", "-", "--=x", "exclusive", "", ":", "--partition gpu"),
    ],
)
def test_an_option_that_contradicts_the_job_is_refused(option: str) -> None:
    assert [one.partition(":")[0] for one in found(extra=[option])] == ["extra"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"partition": ""}, "partition: found ''"),
        ({"mem": -5}, "mem: found -5"),
        ({"mem": "64 GB of it"}, "mem: found '64 GB of it'"),
        ({"mem": ""}, "mem: found ''"),
        ({"time": ""}, "time: found ''"),
        ({"container": " "}, "container: found ' '"),
        ({"export": ["MINE=1"]}, "export: found 'MINE=1'"),
        ({"export": ["ALL"]}, "export: found 'ALL'"),
        ({"export": ["A,B"]}, "export: found 'A,B'"),
        ({"setup": ["module load cuda", " #SBATCH --exclusive"]}, "setup: found ' #SBATCH --exclusive'"),
        ({"setup": ["export HF_TOKEN=hf_abcdefghij"]}, "setup: what looks like a secret"),
        ({"setup": ["WANDB_API_KEY='0123456789abcdef' true"]}, "setup: what looks like a secret"),
        ({"extra": ["--comment=hf_abcdefghij"]}, "extra: what looks like a secret"),
        ({"container": "https://me:word@registry/image"}, "container: what looks like a secret"),
        ({"device": "cuda", "gres": "nvme:1"}, "gres: found 'nvme:1', and launcher.device is cuda"),
        ({"device": "cuda", "gres": "gpu:4"}, "gres: found 'gpu:4', and launcher.nproc_per_node is 8"),
        ({"device": "cuda", "gres": "gpu:h100:4"}, "gres: found 'gpu:h100:4', and launcher.nproc_per_node is 8"),
        ({"device": "cuda", "gres": "gpu:1080ti"}, "gres: found 'gpu:1080ti', and launcher.nproc_per_node is 8"),
    ],
)
def test_what_slurm_would_take_amiss_is_refused(settings: dict[str, Any], expected: str) -> None:
    (problem,) = found(**settings)
    assert problem.startswith(expected)
    assert "abcdef" not in problem


@pytest.mark.parametrize(
    "settings",
    [
        {"mem": 0, "time": 90, "export": ["MINE", "_a1"]},
        {
            "setup": [
                "export HF_TOKEN=$(cat ~/.token)",
                "export SSL_KEY=/etc/a-key.pem",
                'export HF_TOKEN="$MINE_OF_OLD"',
            ]
        },
        {
            "setup": [
                "# as in #SBATCH",
                "export TOKENIZERS_PARALLELISM=false-or-true",
                "HF_HUB_DISABLE_IMPLICIT_TOKEN=1",
            ]
        },
        {"device": "cuda", "gres": "gpu:h100:4,gpu:a100:4"},
        {"device": "cuda", "gres": "nvme:1,gpu:8"},
        {"device": "cuda", "gres": "shard:1"},
        {"device": "cpu", "gres": "nvme:1"},
    ],
)
def test_what_slurm_takes_is_taken(settings: dict[str, Any]) -> None:
    assert found(**settings) == []


def test_more_than_slurm_takes_to_save_is_refused(write, load) -> None:
    with pytest.raises(ConfigError, match=r"slurm.save_seconds: found 70000"):
        load(write(), "pretrain.launcher.kind=slurm", "pretrain.launcher.slurm.save_seconds=70000")

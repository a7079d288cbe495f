import pytest

from titanflow.common.errors import ConfigError
from titanflow.config.checks.processes.slurm import limit_seconds


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        # Each form of sbatch's manual page: minutes, minutes:seconds, hours:minutes:seconds, days-hours,
        # days-hours:minutes and days-hours:minutes:seconds.
        ("90", 5400),
        ("1:30", 90),
        ("1:30:00", 5400),
        ("2-12", 216000),
        ("2-12:30", 217800),
        ("2-12:30:15", 217815),
        ("4h", None),
        ("", None),
        ("1:2:3:4", None),
    ],
)
def test_a_time_limit_is_read_as_slurm_reads_it(time: str, seconds: int | None) -> None:
    assert limit_seconds(time) == seconds


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            ["kind=slurm", "nnodes=2", "rdzv_endpoint=node0:29500"],
            "rdzv_endpoint: found 'node0:29500', and launcher.kind",
        ),
        (["kind=slurm", "nnodes=2", "node_rank=1"], "launcher.node_rank: found 1, and launcher.kind is slurm"),
        (["slurm.partition=gpu"], "slurm.partition: found 'gpu', and launcher.kind is local: nothing reads it"),
        (["kind=slurm", "slurm.time=four hours"], "slurm.time: found 'four hours'"),
        (
            ["kind=slurm", "slurm.time=2"],
            "slurm.time: found 120 s, and the stage is told to save 120 to 180 s before its end",
        ),
        # Slurm may send the signal a minute early.
        (["kind=slurm", "slurm.time=3"], "slurm.time: found 180 s, and the stage is told to save 120 to 180 s"),
        (["nnodes=2"], "nnodes: found 2, and launcher.kind is local"),
        (["kind=slurm", "slurm.account=true"], "slurm.account: found True (bool)"),
        (["kind=slurm", "slurm.export=[yes]"], "slurm.export: found [True] (list)"),
        (["kind=slurm", "slurm.export=[0123]"], "slurm.export: found [123] (list)"),
        (["kind=slurm", "slurm.mem=0x10"], "slurm.mem: found '0x10'"),
        (
            ["kind=slurm", "slurm.time=2:00"],
            "slurm.time: found 120 s, and the stage is told to save 120 to 180 s before its end",
        ),
        (["kind=slurm", "slurm.extra=[exclusive]"], "slurm.extra: found 'exclusive'"),
        (["kind=slurm", "slurm.extra=[--array=1-4]"], "slurm.extra: found '--array=1-4'"),
        (["kind=slurm", "slurm.extra=[-N4]"], "slurm.extra: found '-N4'"),
        (["kind=slurm", "slurm.partion=gpu"], "slurm.partion: unknown key"),
        (["kind=slurm", "slurm.save_seconds=0"], "slurm.save_seconds: found 0"),
        (["local_data=disk/rows"], "launcher.local_data: found 'disk/rows'"),
        (["kind=pbs"], "launcher.kind: found 'pbs'"),
    ],
)
def test_what_a_launcher_of_its_kind_cannot_use_is_refused(write, load, given: list[str], expected: str) -> None:
    with pytest.raises(ConfigError, match=r".*") as refused:
        load(write(), *(f"pretrain.launcher.{one}" for one in given))
    assert f"pretrain.launcher.{expected.removeprefix('launcher.')}" in str(refused.value)


def test_what_slurm_is_asked_for_may_stand_for_all_stages(write, load) -> None:
    settings = ("launcher.kind=slurm", "launcher.nnodes=2", "launcher.slurm.time=4:00:00", "launcher.slurm.mem=64G")
    loaded = load(write(), *settings, "launcher.slurm.extra=[--exclusive, --cpus-per-task=8]")
    assert loaded.modules["pretrain"].config["launcher"]["slurm"]["extra"] == ["--exclusive", "--cpus-per-task=8"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["nnodes=2"], "nnodes: found 2, and prepare.launcher.kind is local"),
        (["slurm.mem=8G"], "slurm.mem: found '8G', and launcher.kind is local: nothing reads it"),
        (["kind=slurm", "slurm.time=soon"], "slurm.time: found 'soon'"),
        (["kind=slurm", "nnodes=0"], "nnodes: found 0"),
        (["device=cuda"], "device: unknown key"),
    ],
)
def test_what_the_preparation_cannot_use_is_refused(write, load, given: list[str], expected: str) -> None:
    with pytest.raises(ConfigError, match=r".*") as refused:
        load(write(), *(f"prepare.launcher.{one}" for one in given))
    assert f"prepare.launcher.{expected}" in str(refused.value)

"""What a launcher's values become, and where its mistakes are told."""

from collections.abc import Callable
from pathlib import Path

import pytest

from titanflow.config.experiment import Experiment, load_experiment
from titanflow.config.files.scheduler_names import NAMES
from titanflow.config.files.schema import dataclass_schema, known_keys
from titanflow.config.keys.launcher import Launcher
from titanflow.config.overrides import parameter_settings

Write = Callable[..., Path]
Load = Callable[..., Experiment]
Mistakes = Callable[..., str]
MODULES = "modules:\n  pretrain: {config: pretrain.yaml, model: tiny.yaml}\n  sft: {config: sft.yaml}\n"


def at(write: Write, launcher: str) -> Path:
    """An experiment of two stages with these lines of a launcher for both, the first of them line 2 of its file."""
    return write(experiments__exp=f"launcher:\n{launcher}{MODULES}")


@pytest.mark.parametrize(
    ("written", "value"),
    [
        # The number that YAML 1.1 or 1.2 reads would be another than the words.
        ("account: 0123", "0123"),
        ("time: 1:30:00", "1:30:00"),
        ("time: 0090", "0090"),
        ("mem: 0", "0"),
        ("constraint: 0o12", "0o12"),
        ("qos: on", "on"),
        ('account: "true"', "true"),
    ],
)
def test_a_text_is_the_words_that_were_written(write: Write, load: Load, written: str, value: str) -> None:
    key = written.partition(":")[0]
    in_file = at(write, f"  kind: slurm\n  slurm: {{{written}}}\n")
    for loaded in (
        load(in_file),
        load(write(), "launcher.kind=slurm", f"launcher.slurm={{{written}}}"),
        load(write(), "launcher.kind=slurm", f"launcher.slurm.{key}={written.partition(': ')[2]}"),
    ):
        assert loaded.modules["pretrain"].config["launcher"]["slurm"][key] == value


def test_a_number_of_a_flow_s_parameter_is_its_digits(write: Write) -> None:
    given = parameter_settings({"launcher.kind": "slurm", "launcher.slurm.time": 90, "launcher.slurm.account": 7})
    launcher = load_experiment(str(write()), None, given).modules["pretrain"].config["launcher"]
    assert (launcher["slurm"]["time"], launcher["slurm"]["account"]) == ("90", "7")


@pytest.mark.parametrize("kind", ["local", "kubernetes"])
def test_the_section_of_another_kind_stands_and_is_named(write: Write, load: Load, kind: str) -> None:
    path = at(write, "  kind: slurm\n  slurm: {partition: gpu}\n")
    chosen = ["launcher.kind=kubernetes", "launcher.kubernetes.image=x", "launcher.kubernetes.volumes={/a: all}"]
    loaded = load(path, *(chosen if kind != "local" else ["launcher.kind=local"]))
    (line,) = [line for line in loaded.warnings if "isn't used" in line]
    assert line.startswith("pretrain, sft: launcher.slurm (")
    assert f"exp.yaml:3) isn't used: launcher.kind is {kind} (--set launcher.kind={kind})" in line


def test_a_mistake_of_all_stages_is_told_once_with_the_line_of_its_key(write: Write, mistakes: Mistakes) -> None:
    lines = "  kind: slurm\n  slurm:\n    mem: lots\n    nodes: 2\n"
    said = mistakes(at(write, lines))
    assert said.endswith(
        "exp.yaml:5: pretrain, sft: launcher.slurm.nodes: unknown key\n    `nodes` is `launcher.nnodes` here"
    )
    path = at(write, lines.replace("    nodes: 2\n", ""))
    assert "exp.yaml:4: pretrain, sft: launcher.slurm.mem: found 'lots'" in mistakes(path)
    # A --set goes before the file, and is named in its place.
    told = "--set launcher.slurm.mem=few: pretrain, sft: launcher.slurm.mem: found 'few'"
    assert mistakes(path, "launcher.slurm.mem=few").startswith(told)
    # Two lines are two mistakes.
    assert mistakes(path, "pretrain.launcher.slurm.mem=few").startswith("2 problems:\n")


def test_a_mistake_in_a_mapping_is_told_with_the_line_of_its_own_key(write: Write, mistakes: Mistakes) -> None:
    lines = "  kind: kubernetes\n  kubernetes:\n    image: a\n    volumes: {/: all}\n    resources:\n      cpu: 4\n"
    lines += "      memory: 64gb\n    env: {A: false}\n"
    assert "exp.yaml:9: pretrain, sft: launcher.kubernetes.env.A: found False (bool)" in mistakes(at(write, lines))
    said = mistakes(at(write, lines.replace("false", '"false"')))
    assert "exp.yaml:8: pretrain, sft: launcher.kubernetes.resources.memory: found memory: '64gb'" in said


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("slurm.nodes=2", "`nodes` is `pretrain.launcher.nnodes` here"),
        ("slurm.cpus_per_task=8", "write `pretrain.launcher.slurm.extra: [--cpus-per-task=8]`"),
        ("slurm.cpus-per-task=8", "write `pretrain.launcher.slurm.extra: [--cpus-per-task=8]`"),
        ("slurm.exclusive=true", "write `pretrain.launcher.slurm.extra: [--exclusive]`"),
        ("cpus_per_task=8", "write `pretrain.launcher.slurm.extra: [--cpus-per-task=8]`"),
        ("slurm.gpus_per_node=8", "`gpus_per_node` is `pretrain.launcher.nproc_per_node` here, one a GPU, with"),
        ("slurm.output=log", "a stage's job sets `--output` itself: leave it out"),
        ("kubernetes.nodes=2", "`nodes` is `pretrain.launcher.nnodes` here"),
        ("kubernetes.nodeSelector={a: b}", "did you mean `pretrain.launcher.kubernetes.node_selector`?"),
        ("kubernetes.serviceAccountName=me", "is `pretrain.launcher.kubernetes.service_account` here"),
        ("kubernetes.memory=64Gi", "`memory` is `pretrain.launcher.kubernetes.resources` here"),
    ],
)
def test_a_scheduler_s_own_name_leads_to_the_key_here(write: Write, mistakes: Mistakes, key: str, hint: str) -> None:
    assert hint in mistakes(write(), f"pretrain.launcher.{key}")


def test_the_preparation_s_launcher_has_the_same_names(write: Write, mistakes: Mistakes) -> None:
    assert "`nodes` is `prepare.launcher.nnodes` here" in mistakes(write(), "prepare.launcher.slurm.nodes=2")
    path = write(experiments__exp=f"prepare: {{launcher: {{slurm: {{nodes: 2}}}}}}\n{MODULES}")
    assert "exp.yaml:1: prepare.launcher.slurm.nodes: unknown key\n    `nodes` is `prepare" in mistakes(path)


def test_each_key_of_the_schedulers_names_exists() -> None:
    known = known_keys(dataclass_schema(Launcher))
    assert [key for names in NAMES.values() for key in names if key not in known] == []
    for names in NAMES.values():
        every = [name for words in names.values() for name in words.split()]
        assert sorted(set(every)) == sorted(every)


def test_this_machine_alone_takes_one_option(write: Write, load: Load, mistakes: Mistakes) -> None:
    path = at(write, "  kind: slurm\n  nnodes: 2\n  slurm: {partition: gpu}\n")
    assert "--set launcher='{kind: local, nnodes: 1}'" in mistakes(path, "launcher.kind=local")
    launcher = load(path, "launcher={kind: local, nnodes: 1}").modules["sft"].config["launcher"]
    assert (launcher["kind"], launcher["nnodes"]) == ("local", 1)

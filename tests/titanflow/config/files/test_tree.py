"""Where a config's files are found: beside the file that names one, in the given tree, among the shipped ones."""

from collections.abc import Callable
from pathlib import Path

import pytest

from titanflow.common.errors import ConfigError
from titanflow.config.experiment import Experiment, load_experiment
from titanflow.config.files.tree import SHIPPED
from titanflow.config.overrides import parse_settings

PRETRAIN = "modules:\n  pretrain:\n    config: pretrain.yaml\n    model: llama3_demo.yaml\n    data: stdlib.yaml\n"
EVALUATE = "modules: {evaluate: {overrides: {tasks: [a], include_path: NAMED}}}"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory in which nothing lies."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def files(tmp_path: Path, here: Path) -> Callable[..., Path]:
    """Writes files below a temporary folder, which it returns."""

    def write(**texts: str) -> Path:
        for name, text in texts.items():
            path = tmp_path / (name.replace("__", "/") + ".yaml")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def load(name: str | Path, configs: Path | None = None, *settings: str) -> Experiment:
    return load_experiment(str(name), configs, parse_settings(settings))


def refusal(name: str | Path, configs: Path | None = None, *settings: str) -> str:
    with pytest.raises(ConfigError) as raised:
        load(name, configs, *settings)
    return str(raised.value)


def taken(experiment: Experiment, module: str = "pretrain") -> dict[str, Path]:
    """The files that a module names, as ``titanflow config`` shows them."""
    found = experiment.modules[module].named
    return {key: Path(path).resolve() for key, (path, _) in found.items() if key != "framework"}


NAMED = {
    "config": ("modules", "training: {steps: 7}"),
    "model": ("models", "model: {name: llama3, flavor: debugmodel}"),
    "data": ("data", "path: a.txt"),
    "validation_data": ("data", "path: b.txt"),
    "data.mixture.sources.a.data": ("data", "path: c.txt"),
}


@pytest.mark.parametrize("key", NAMED)
def test_each_kind_of_file_lies_beside_then_in_the_tree_then_among_the_shipped(files, key: str) -> None:
    room, text = NAMED[key]
    section = "overrides: {data: {mixture: {sources: {a: {data: NAMED}}}}}" if "." in key else f"{key}: NAMED"
    own = "" if key == "model" else ", model: llama3_demo"
    named = {"models": "llama3_demo.yaml", "modules": "pretrain.yaml", "data": "stdlib.yaml"}[room]
    text_of = f"modules: {{pretrain: {{{section}{own}}}}}".replace("NAMED", named)
    root = files(exp__mine=text_of)
    mine, tree = root / "exp" / "mine.yaml", root / "tree"
    tree.mkdir()
    assert taken(load(mine, tree))[key] == SHIPPED / room / named
    files(**{f"tree__{room}__{Path(named).stem}": text})
    assert taken(load(mine, tree))[key] == tree / room / named
    files(**{f"exp__{Path(named).stem}": text})
    assert taken(load(mine, tree))[key] == mine.with_name(named)


def test_so_does_a_folder_of_evaluation_tasks(files, here: Path) -> None:
    root = files(exp__mine=EVALUATE.replace("NAMED", "evals"))
    mine, tree = root / "exp" / "mine.yaml", root / "tree"

    def folder(*settings: str) -> Path:
        return Path(load(mine, tree, *settings).modules["evaluate"].config["include_path"])

    (tree / "data").mkdir(parents=True)
    (here / "evals").mkdir()
    assert folder() == SHIPPED / "evals"
    (tree / "evals").mkdir()
    assert folder() == tree / "evals"
    (root / "exp" / "evals").mkdir()
    assert folder() == root / "exp" / "evals"
    assert folder("evaluate.include_path=evals") == here / "evals"
    assert folder("evaluate.include_path=../tree/evals") == tree / "evals"
    mine.write_text("modules: {evaluate: {config: null, overrides: {tasks: [a]}}}")
    assert folder() == tree / "evals", "nobody named the default, so that nothing is beside it"


def test_so_does_what_a_file_extends(files) -> None:
    root = files(exp__mine="extends: [stdlib.yaml]\nuser_name: me\n", tree__modules__x="")
    mine, tree = root / "exp" / "mine.yaml", root / "tree"
    assert load(mine, tree).modules["publish"].config["language"] == ["en"]
    files(tree__experiments__stdlib=f"work_group: trees\n{PRETRAIN}")
    assert load(mine, tree).spec.work_group == "trees"
    files(exp__stdlib=f"work_group: neighbours\n{PRETRAIN}")
    assert (load(mine, tree).spec.work_group, load(mine, tree).spec.user_name) == ("neighbours", "me")


def test_a_tree_needs_only_what_differs(files) -> None:
    data = PRETRAIN.replace("data: stdlib", "data: my")
    tree = files(tree__experiments__mine=data, tree__data__my="path: rows.txt\n") / "tree"
    for name, configs in (("mine", tree), (tree / "experiments" / "mine.yaml", None)):
        mine = load(name, configs)
        assert mine.exp_name == "mine"
        assert taken(mine)["data"] == tree / "data" / "my.yaml"
        assert taken(mine)["model"] == SHIPPED / "models" / "llama3_demo.yaml"


def test_the_tree_of_an_experiment_goes_before_the_given_one(files) -> None:
    data = PRETRAIN.replace("data: stdlib", "data: my").replace("llama3_demo", "tiny")
    root = files(tree__experiments__mine=data, tree__data__my="path: own.txt\n", given__data__my="path: given.txt\n")
    files(
        given__models__tiny="model: {name: llama3, flavor: debugmodel}", given__modules__pretrain="training: {steps: 7}"
    )
    found = taken(load(root / "tree" / "experiments" / "mine.yaml", root / "given"))
    assert found["data"] == root / "tree" / "data" / "my.yaml"
    assert found["model"] == root / "given" / "models" / "tiny.yaml"
    assert found["config"] == root / "given" / "modules" / "pretrain.yaml"


def test_a_shipped_experiment_takes_what_a_tree_has_in_place_of_a_shipped_file(files) -> None:
    tree = files(tree__models__llama3_demo="model: {name: llama3, flavor: debugmodel}") / "tree"
    stdlib = load("stdlib", tree)
    assert taken(stdlib)["model"] == tree / "models" / "llama3_demo.yaml"
    assert taken(stdlib)["data"] == SHIPPED / "data" / "stdlib.yaml"


def test_the_current_folders_configs_are_such_a_tree_if_they_are_titanflows(files, here: Path) -> None:
    root = files(here__configs__models__llama3_demo="model: {name: llama3, flavor: debugmodel}")
    assert taken(load("stdlib"))["model"] == SHIPPED / "models" / "llama3_demo.yaml", "another tool's"
    files(here__configs__experiments__mine=PRETRAIN)
    for name in ("stdlib", "mine"):
        assert taken(load(name))["model"] == root / "here/configs/models/llama3_demo.yaml"


def test_a_tree_s_file_may_extend_the_shipped_one_of_its_name(files) -> None:
    text = "extends: [pretrain.yaml]\ntraining: {steps: 7}\n"
    pretrain = load("stdlib", files(tree__modules__pretrain=text) / "tree").modules["pretrain"]
    assert pretrain.config["optimizer"]["name"] == "AdamW"
    assert pretrain.origins["lr_scheduler.warmup_steps"].startswith(str(SHIPPED / "experiments"))
    assert pretrain.origins["lr_scheduler.decay_type"].startswith(str(SHIPPED / "modules" / "pretrain.yaml"))


@pytest.mark.parametrize("text", [PRETRAIN, "exp_name: x", "extends: [stdlib.yaml]\nlauncher: {nproc_per_node: 1}"])
def test_an_experiment_beside_is_no_file_of_another_kind(files, text: str) -> None:
    root = files(exp__mine=PRETRAIN, exp__pretrain=text, exp__stdlib=PRETRAIN)
    for name in ("mine", "stdlib"):
        found = taken(load(root / "exp" / f"{name}.yaml"))
        assert found["config"] == SHIPPED / "modules" / "pretrain.yaml"
        assert found["data"] == SHIPPED / "data" / "stdlib.yaml"


def test_a_module_file_beside_that_extends_another_is_taken(files) -> None:
    launcher = "launcher: {nproc_per_node: 1}\n"
    root = files(exp__mine=PRETRAIN, exp__pretrain=f"extends: [ours.yaml]\n{launcher}", exp__ours=launcher)
    assert taken(load(root / "exp" / "mine.yaml"))["config"] == root / "exp" / "pretrain.yaml"
    files(exp__ours=f"extends: [../exp/pretrain.yaml]\n{launcher}")
    assert "a cycle" in refusal(root / "exp" / "mine.yaml")


def test_a_name_of_a_command_line_is_of_the_current_folder(files, here: Path) -> None:
    root = files(exp__mine=PRETRAIN, here__llama3_demo="model: {name: llama3, flavor: debugmodel}")
    mine = root / "exp" / "mine.yaml"
    assert taken(load(mine))["model"] == SHIPPED / "models" / "llama3_demo.yaml"
    for named in ("llama3_demo", "llama3_demo.yaml", "../here/llama3_demo.yaml"):
        assert taken(load(mine, None, f"pretrain.model={named}"))["model"] == here / "llama3_demo.yaml"


def test_a_file_that_is_nowhere_is_refused_with_all_places_in_their_order(files) -> None:
    root = files(exp__mine=PRETRAIN.replace("llama3_demo", "tinny"), tree__models__tiny="", exp__other="")
    places = f"{root}/exp, then {root}/tree/models, then {SHIPPED}/models"
    message = refusal(root / "exp" / "mine.yaml", root / "tree")
    assert f"mine.yaml:4: modules.pretrain.model: no file 'tinny.yaml'\n    expected: a file in {places}\n" in message
    assert "did you mean tiny.yaml?" in message
    near = {"oter": "other", "llama3_8C": "llama3_8B", "tiny_": "tiny"}
    for name, meant in near.items():
        files(exp__mine=PRETRAIN.replace("llama3_demo.yaml", name))
        assert f"did you mean {meant}.yaml?" in refusal(root / "exp" / "mine.yaml", root / "tree")


def test_a_folder_in_place_of_a_file_is_named_and_so_is_the_reverse(files, here: Path) -> None:
    root = files(exp__mine=PRETRAIN.replace("llama3_demo", "folder"), exp__e=EVALUATE.replace("NAMED", "mine.yaml"))
    (root / "exp" / "folder.yaml").mkdir()
    assert f"{root}/exp/folder.yaml is a folder" in refusal(root / "exp" / "mine.yaml")
    assert f"{root}/exp/mine.yaml is a file" in refusal(root / "exp" / "e.yaml")
    (here / "my.yaml").mkdir()
    assert "my.yaml is a folder" in refusal("my")


def test_an_experiment_of_the_current_folder_goes_before_one_of_its_name(files, here: Path) -> None:
    (here / "stdlib").write_text("a program")
    assert load("stdlib").path == SHIPPED / "experiments" / "stdlib.yaml"
    (here / "stdlib.yaml").write_text("path: rows.txt\n")
    assert load("stdlib").path == SHIPPED / "experiments" / "stdlib.yaml", "a data file of that name"
    assert "the experiment has no modules" in refusal("stdlib.yaml"), "by its path it was meant"
    (here / "stdlib.yaml").write_text("extends: [stdlib.yaml]\nuser_name: me\n")
    for name in ("stdlib", "stdlib.yaml", "./stdlib", "../here/stdlib.yaml"):
        assert load(name).path.resolve() == here / "stdlib.yaml"
        assert (load(name).exp_name, load(name).spec.user_name) == ("stdlib", "me")
    files(here__mine="user_name: me\n")
    assert "the experiment has no modules" in refusal("mine")

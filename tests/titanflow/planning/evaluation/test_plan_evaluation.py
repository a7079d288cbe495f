"""An evaluation that would fail once everything is trained is refused in the plan, unless it is done already."""

from pathlib import Path

import pytest
from finished_without_training import finish
from tiny_experiment import write_tiny_experiment
from tiny_plans import edit, refusal, state

from titanflow.common.errors import ConfigError
from titanflow.data.prepare import prepare
from titanflow.data.tokenizer.tokenizer import train_tokenizer
from titanflow.planning.evaluation.tasks import check_tasks
from titanflow.planning.plan import make_plan

ITEMS = '{"question": "What colour is the sky?", "choices": ["blue", "red"], "answer": "blue"}\n'


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write_tiny_experiment(tmp_path)


def test_a_task_that_nothing_knows_is_refused_before_anything_is_trained(configs: Path) -> None:
    edit(configs / "experiments" / "tiny.yaml", "tasks: [tiny_colour]", "tasks: [tiny_color]")
    message = refusal(configs)
    assert "experiments/tiny.yaml:" in message
    assert "evaluate.tasks: no task or group 'tiny_color'" in message
    assert "did you mean tiny_colour" in message
    assert not (configs.parent / "runs").exists()


def test_all_that_is_wrong_with_a_task_is_said_at_once(configs: Path) -> None:
    task = configs / "evals" / "tiny_colour.yaml"
    edit(task, "output_type", "output_typ")
    edit(task, "items.jsonl", "itmes.jsonl")
    message = refusal(configs)
    assert message.startswith("2 problems")
    assert "tiny_colour.yaml:6: output_typ: unknown key" in message
    assert "tiny_colour.yaml:3: dataset_kwargs.data_files: no such file" in message


def test_a_broken_file_that_nobody_asks_for_stops_nothing(configs: Path) -> None:
    (configs / "evals" / "broken.yaml").write_text("task: broken\nmetric_list: [\n")
    assert state(make_plan("tiny", configs)) == "RUN"
    assert "broken.yaml:3: not YAML" in refusal(configs, "evaluate.tasks=[broken]")


def test_a_finished_evaluation_needs_its_items_no_longer(configs: Path) -> None:
    finish(configs)
    (configs.parent / "items.jsonl").unlink()
    assert state(make_plan("tiny", configs)) == "CACHED"


def test_other_items_are_another_evaluation(configs: Path) -> None:
    finish(configs)
    (configs.parent / "items.jsonl").write_text(ITEMS)
    (evaluate,) = (stage for stage in make_plan("tiny", configs).stages if stage.stage == "evaluate")
    assert evaluate.state == "STALE"
    assert [change.key for change in evaluate.changes] == [f"evaluate.data_files: {configs.parent}/items.jsonl"]


def test_only_the_files_that_are_asked_for_count(configs: Path) -> None:
    evals = configs / "evals"
    edit(evals / "tiny_colour.yaml", "task: tiny_colour\n", "task: tiny_colour\ninclude: _base\n")
    (evals / "_base").write_text("doc_to_text: ''\n")
    finish(configs)
    (evals / "other.yaml").write_text("task: other\n")
    assert state(make_plan("tiny", configs)) == "CACHED"
    (evals / "_base").write_text("doc_to_text: '?'\n")
    assert state(make_plan("tiny", configs)) == "STALE"


def test_items_of_ones_own_are_found_below_data(configs: Path) -> None:
    edit(configs / "evals" / "tiny_colour.yaml", f"{configs.parent}/items.jsonl", '"${data}/colours.jsonl"')
    assert "the task wants ${data}, and no evaluation data is prepared" in refusal(configs)
    items = configs.parent / "items"
    items.mkdir()
    (items / "colors.jsonl").write_text(ITEMS)
    mine = f"evaluate.data.path={items}"
    message = refusal(configs, mine)
    assert "${data}/colours.jsonl isn't among the prepared items" in message
    assert "did you mean ${data}/colors.jsonl?" in message
    (items / "colors.jsonl").rename(items / "colours.jsonl")
    edit(configs / "evals" / "tiny_colour.yaml", "{{answer}}", "{{anwser}}")
    assert "no item has 'anwser': colours.jsonl" in refusal(configs, mine)
    edit(configs / "evals" / "tiny_colour.yaml", "{{anwser}}", "{{answer}}")
    plan = make_plan("tiny", configs, overrides=[mine])
    assert [dataset["kind"] for dataset in plan.stages[0].run.config["datasets"]].count("evals") == 1


def test_a_group_that_mixes_chats_with_texts_is_refused(configs: Path) -> None:
    evals = configs / "evals"
    text = (evals / "tiny_colour.yaml").read_text()
    (evals / "plain.yaml").write_text(text.replace("tiny_colour", "plain").replace("chat: true", "chat: false"))
    (evals / "both.yaml").write_text("group: both\ntask: [tiny_colour, plain]\n")
    message = refusal(configs, "evaluate.tasks=[both]")
    assert "evaluate.chat: found auto, and both mixes tasks with and without" in message
    make_plan("tiny", configs, overrides=["evaluate.tasks=[both]", "evaluate.chat=false"])
    make_plan("tiny", configs, overrides=["evaluate.tasks=[tiny_colour, plain]"])


def test_a_model_without_a_template_is_not_asked_through_one(
    configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (model / name).write_text("{}")
    theirs = f"evaluate.models={{theirs: {model}}}"
    message = refusal(configs, theirs)
    assert f"evaluate.models: tiny_colour asks through a chat template, and theirs ({model}) has none" in message
    assert "models: [sft]" in message
    monkeypatch.setenv("HOME", str(model.parent))
    assert f"theirs ({model}) has none" in refusal(configs, f"evaluate.models={{theirs: ~/{model.name}}}")
    make_plan("tiny", configs, overrides=[theirs, "evaluate.chat=false"])
    (model / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    make_plan("tiny", configs, overrides=[theirs])


def test_a_given_tokenizer_without_a_template_gives_the_pretrained_model_none(configs: Path, tmp_path: Path) -> None:
    given = tmp_path / "given"
    train_tokenizer(["The stone is red. I saw 1 of them.\n"] * 20, 300, given)
    settings = [f"pretrain.tokenizer.path={given}", "publish.model=pretrain", "evaluate.models=[base]"]
    make_plan("tiny", configs, overrides=settings)
    (given / "chat_template.jinja").unlink()
    make_plan("tiny", configs, overrides=[settings[0], "evaluate.models=[sft]"])
    assert "asks through a chat template, and base (" in refusal(configs, *settings)
    mean = "evaluate.models={tail: {mean: {of: pretrain, last: 2}}}"
    assert "asks through a chat template, and tail (" in refusal(configs, settings[0], mean, "publish.model=tail")


def test_a_template_that_cannot_be_read_is_refused(configs: Path) -> None:
    edit(configs / "evals" / "tiny_colour.yaml", "{{question}}", "{{question}")
    assert "tiny_colour.yaml:7: doc_to_text: no Jinja template: unexpected '}'" in refusal(configs)


def test_a_column_that_no_item_has_is_refused(configs: Path) -> None:
    task = configs / "evals" / "tiny_colour.yaml"
    edit(task, "{{question}}", "{{messages[0].content}}")
    edit(task, "{{answer}}", "{{anwser}}")
    message = refusal(configs)
    assert message.startswith("2 problems")
    assert "tiny_colour.yaml:7: doc_to_text: no item has 'messages': items.jsonl" in message
    assert "expected: one of question, choices, answer" in message
    assert "did you mean answer?" in message


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("doc_to_text", "questoin", "did you mean question? For the word itself: \"{{'questoin'}}\""),
        ("doc_to_target", "answr", "did you mean answer?"),
        ("doc_to_choice", "choises", "did you mean choices?"),
        ("doc_to_choice", "yes or no", "one of question, choices, answer"),
    ],
)
def test_a_word_that_was_meant_as_a_column_is_refused(configs: Path, key: str, value: str, expected: str) -> None:
    column = {"doc_to_text": "question", "doc_to_target": "answer", "doc_to_choice": "choices"}[key]
    edit(configs / "evals" / "tiny_colour.yaml", f'"{{{{{column}}}}}"', value)
    message = refusal(configs)
    assert f"{key}: no item has '{value}': items.jsonl" in message
    assert expected in message


def test_a_setting_of_generation_that_nothing_knows_is_refused(configs: Path) -> None:
    message = refusal(configs, "evaluate.gen_kwargs={temprature: 0.7}")
    assert "evaluate.gen_kwargs.temprature: unknown setting" in message
    assert "did you mean temperature?" in message


@pytest.mark.parametrize(
    "template",
    [
        "question",
        "Which colour",
        "{{range(3) | join}} {% for one in choices %}{{one}}{% endfor %}",
        "{{messages | default('')}}{% if tools is defined %}{{tools}}{% endif %}",
        "{{rare}}",
        "{{question | regex_replace('a', 'b')}}",
    ],
)
def test_templates_that_ask_for_what_is_there(configs: Path, template: str) -> None:
    with (configs.parent / "items.jsonl").open("a") as items:
        items.write('{"rare": 1}\n')
    edit(configs / "evals" / "tiny_colour.yaml", "{{question}}", template)
    make_plan("tiny", configs)


def test_items_that_code_makes_have_columns_of_their_own(configs: Path) -> None:
    task = configs / "evals" / "tiny_colour.yaml"
    edit(task, "{{question}}", "{{messages}}")
    (configs / "evals" / "own.py").write_text("def made(rows):\n    return rows\n")
    task.write_text(task.read_text() + "process_docs: !function own.made\n")
    make_plan("tiny", configs)


def test_the_columns_of_held_out_rows_are_known_once_they_are_prepared(configs: Path) -> None:
    edit(configs / "evals" / "tiny_colour.yaml", f"{configs.parent}/items.jsonl", '"${data}/items.jsonl"')
    edit(configs / "data" / "chats.yaml", "kind: chat", "held_out: {dev: 1, test: 2}\nkind: chat")
    edit(configs / "experiments" / "tiny.yaml", "config: evaluate.yaml", "config: evaluate.yaml\n    data: chats.yaml")
    plan = make_plan("tiny", configs)
    prepare(plan.stages[0].run)
    message = refusal(configs)
    assert "doc_to_text: no item has 'question': items.jsonl" in message
    assert "expected: one of messages" in message
    with pytest.raises(ConfigError, match="no item has 'question'"):
        check_tasks(plan.stages, plan.config.modules)


def test_items_by_their_own_path_are_not_of_a_file_that_is_trained_on(configs: Path) -> None:
    task = configs / "evals" / "tiny_colour.yaml"
    edit(task, f"{configs.parent}/items.jsonl", f"{configs.parent}/../{configs.parent.name}/chats.jsonl")
    edit(task, "{{question}}", "{{messages}}")
    edit(task, "{{choices}}", "{{messages}}")
    edit(task, "{{answer}}", "{{messages}}")
    message = refusal(configs)
    assert f"tiny_colour.yaml:3: dataset_kwargs: {configs.parent}/chats.jsonl is trained on, in sft.data" in message
    assert "rows that nothing trains on: ${data}/items.jsonl" in message


def test_a_list_says_which_tasks_are_asked_as_chats(configs: Path) -> None:
    message = refusal(configs, "evaluate.chat=[tiny_color]")
    assert "evaluate.chat: 'tiny_color' isn't evaluated" in message
    assert "did you mean tiny_colour?" in message
    first = make_plan("tiny", configs, overrides=["evaluate.chat=[tiny_colour]"])
    second = make_plan("tiny", configs, overrides=["evaluate.chat=false"])
    fingerprints = {
        stage.run.fingerprint for plan in (first, second) for stage in plan.stages if stage.stage == "evaluate"
    }
    assert len(fingerprints) == 2


def test_a_chat_model_that_is_asked_without_its_template_is_named(configs: Path) -> None:
    library = ["evaluate.tasks=[tiny_colour, arc_easy]"]
    (warning,) = make_plan("tiny", configs, overrides=library).config.warnings
    assert warning == ("evaluate.chat: auto asks sft without the chat template in tasks of lm-eval's library: arc_easy")
    assert not make_plan("tiny", configs, overrides=[*library, "evaluate.chat=[arc_easy]"]).config.warnings
    plain = ["evaluate.tasks=[lambada_openai]", "evaluate.num_fewshot=1", "evaluate.chat=false"]
    (warning,) = make_plan("tiny", configs, overrides=plain).config.warnings
    assert warning.endswith("a few-shot prompt may hold the asked question and its answer in lambada_openai")
    assert not make_plan("tiny", configs).config.warnings


def test_more_examples_than_a_task_has_are_refused(configs: Path) -> None:
    (configs.parent / "items.jsonl").write_text(3 * ITEMS)
    make_plan("tiny", configs, overrides=["evaluate.num_fewshot=2"])
    found = "tiny_colour has 2 examples, and 3 are asked for"
    assert f"evaluate.num_fewshot: {found}" in refusal(configs, "evaluate.num_fewshot=3")
    edit(configs / "evals" / "tiny_colour.yaml", "task: tiny_colour\n", "task: tiny_colour\nnum_fewshot: 3\n")
    assert f"tiny_colour.yaml:2: num_fewshot: {found}" in refusal(configs)


def test_a_task_in_a_groups_file_has_to_name_the_split_of_its_examples(configs: Path) -> None:
    evals = configs / "evals"
    lines = (evals / "tiny_colour.yaml").read_text().replace("tiny_colour", "other").splitlines()
    inside = "\n".join(f"    {line}" for line in lines).replace("    task", "  - task", 1)
    (evals / "inside.yaml").write_text(f"group: inside\ntask:\n{inside}\n")
    make_plan("tiny", configs, overrides=["evaluate.tasks=[inside]"])
    message = refusal(configs, "evaluate.tasks=[inside]", "evaluate.num_fewshot=1")
    assert "names no split for its 1 examples" in message

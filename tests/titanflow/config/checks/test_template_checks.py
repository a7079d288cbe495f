"""What a chat template is told beside the messages, checked in the plan against what it asks for."""

import json
from pathlib import Path
from typing import Any

import pytest

from titanflow.common.errors import ConfigError
from titanflow.data.prepare_plan import PreparePlan
from titanflow.planning.plan import make_plan

THINKS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
DATED = "{% set date = date_string | default(strftime_now('%d %b %Y')) %}{{ date }}" + THINKS
DATED_IF = "{% if date_string is not defined %}{% set date_string = strftime_now('%Y') %}{% endif %}{{ date_string }}"
TODAY = "{{ strftime_now('%Y-%m-%d') }}" + THINKS


def plan_with(tmp_path: Path, template: str, args: dict[str, Any]) -> Any:
    (tmp_path / "own.jinja").write_text(template)
    (tmp_path / "a.jsonl").write_text('{"messages": [{"role": "user", "content": "Q"}]}\n')
    model = {"name": "llama3", "flavor": "debugmodel"}
    chat = {"template": str(tmp_path / "own.jinja"), "template_args": args}
    sft = {"data": {"kind": "chat", "path": str(tmp_path / "a.jsonl")}, "chat": chat}
    modules = {
        "pretrain": {"config": None, "model": model, "overrides": {"data": {"source": "stdlib"}}},
        "sft": {"config": None, "overrides": sft},
    }
    experiment = tmp_path / "exp.yaml"
    experiment.write_text(json.dumps({"workspace": str(tmp_path / "runs"), "modules": modules}))
    return make_plan(str(experiment))


@pytest.mark.parametrize(
    ("template", "args", "expected"),
    [
        (THINKS, {"enable_thinkin": False}, "template_args.enable_thinkin: template .* never asks for"),
        (THINKS, {"enable_thinkin": False}, "expected: enable_thinking"),
        (THINKS, {"messages": []}, "never asks for 'messages'"),
        (TODAY, {"strftime_now": 2025}, "strftime_now: found 2025"),
        (TODAY, {}, r'chat.template: .* writes the date of today[\s\S]*strftime_now: "26 Jul 2024"'),
        (TODAY, {"enable_thinking": False}, "writes the date of today"),
        (DATED_IF + THINKS, {}, r'writes the date of today[\s\S]*date_string: "26 Jul 2024"'),
    ],
)
def test_what_a_template_is_told_must_be_asked_for_and_a_date_must_be_given(
    tmp_path: Path, template: str, args: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected) as refused:
        plan_with(tmp_path, template, args)
    assert "exp.yaml:1" in str(refused.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("template", "args"),
    [
        (THINKS, {"enable_thinking": False}),
        (DATED_IF + THINKS, {"date_string": "26 Jul 2024"}),
        (DATED, {"date_string": "26 Jul 2024"}),
        (TODAY, {"strftime_now": "2025-06-30"}),
        ("{# strftime_now #}" + THINKS, {}),
    ],
)
def test_what_it_is_told_stands_in_the_template_that_the_data_is_rendered_with(
    tmp_path: Path, template: str, args: dict[str, Any]
) -> None:
    config = plan_with(tmp_path, template, args).stage("prepare").run.config
    (plan,) = [one.chat_plan for one in PreparePlan.model_validate(config).datasets if one.chat]
    assert plan.template.endswith(template)
    assert all(repr(value) in plan.template for value in args.values())


def test_it_is_part_of_the_rows_fingerprint(tmp_path: Path) -> None:
    def folder(args: dict[str, Any]) -> Path:
        return plan_with(tmp_path, THINKS, args).stage("sft").run.data.train

    assert len({folder({}), folder({"enable_thinking": False}), folder({"enable_thinking": True})}) == 3


def test_a_change_of_it_is_named_by_its_own_key_and_line(tmp_path: Path) -> None:
    inputs = plan_with(tmp_path, THINKS, {"enable_thinking": False}).stage("sft").inputs
    key = "sft.chat.template_args.enable_thinking"
    assert inputs.values[key] is False
    assert inputs.origins[key].endswith("exp.yaml:1")

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from reported_run import EVIL, evaluation, publication, write_plan

from titanflow.common.errors import ConfigError
from titanflow.report.render import REPORT_FILE, breakable, render_report, write_report
from titanflow.runs.errors import StageError, write_error
from titanflow.runs.metrics import EVALUATIONS_FILE, SAMPLES_FILE, append_record
from titanflow.runs.results import write_result

pytestmark = pytest.mark.slow

VOID = {"meta", "img", "br", "hr", "link", "input", "wbr"}


class Page(HTMLParser):
    """The elements of a page with their attributes, the open ones, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def headings(page: Page, text: str) -> list[str]:
    return [part.split("</h2>")[0] for part in text.split("<h2>")[1:]]


def test_a_finished_run_has_every_section(run_folder: Path) -> None:
    text = render_report(run_folder)
    assert headings(Page(text), text) == [
        *("Training", "Results", "Publishing", "Time", "Data", "What sft trains", "Plan"),
        *("What sft keeps and changes", "Lineage"),
    ]


def test_scores_and_answers_on_the_way_stand_below_the_training(run_folder: Path) -> None:
    folder = run_folder / "pretrain"
    for step in (2, 4, 6):
        scores = {"failed": f"{EVIL} killed"} if step == 4 else {"part": "dev", "scores": {"kind": {"acc": step / 10}}}
        append_record(folder / EVALUATIONS_FILE, {"step": step, **scores})
        append_record(folder / SAMPLES_FILE, {"step": step, "prompt": "The", "answer": f"{EVIL} {step}"})
    page = Page(render_report(run_folder))
    assert "Scores while it trained, of the dev part" in page.text
    assert "kind acc" in page.text
    assert "step 4 wasn't scored: <script>" in page.text
    assert "Answers while it trained" in page.text
    assert "src=x onerror=alert(1)> http://evil.example/ 6" in page.text
    assert not [tag for tag, _ in page.tags if tag in ("script", "img")]


def test_the_forecast_stands_beside_what_it_came_to(run_folder: Path) -> None:
    text = Page(render_report(run_folder)).text
    assert "25 s → 20 s" in text
    assert "measured on run before" in text
    assert "As it was forecast" in text


def test_every_element_is_closed(run_folder: Path) -> None:
    assert Page(render_report(run_folder)).open == []


def test_the_page_needs_nothing_from_anywhere(run_folder: Path) -> None:
    page = Page(render_report(run_folder))
    assert not {"script", "link", "iframe", "img", "object", "embed", "a"} & {tag for tag, _ in page.tags}
    addresses = [value for _, attrs in page.tags for name, value in attrs.items() if name.endswith(("src", "href"))]
    assert all(value is not None and value.startswith("#") for value in addresses)
    assert not any("http" in (value or "") for tag, attrs in page.tags for value in attrs.values() if tag != "meta")
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv"))
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert "@import" not in page.text
    assert "url(" not in page.text


def test_what_a_model_says_is_text(run_folder: Path) -> None:
    page = Page(render_report(run_folder))
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert '<script>alert("1")</script> | `rm` <img src=x' in page.text


def test_trained_tokens_are_marked_and_no_others(run_folder: Path) -> None:
    text = render_report(run_folder)
    marked = [part.split("</mark>")[0] for part in text.split("<mark>")[2:]]
    assert marked == ["It is &lt;i&gt;red&lt;/i&gt;.&lt;|im_end|&gt;"]
    assert "Is it &lt;b&gt;red&lt;/b&gt;?" in text
    assert "chats.jsonl:1" in text
    assert "/home/someone" not in text


def test_pictures_take_the_page_s_colours(run_folder: Path) -> None:
    text = render_report(run_folder)
    assert text.count('<svg class="plot"') == 2 * 5  # the loss in two sizes
    assert "var(--accent)" in text.split("<svg")[1]
    assert "prefers-color-scheme: dark" in text


def test_the_same_run_gives_the_same_page(run_folder: Path) -> None:
    assert render_report(run_folder) == render_report(run_folder)


def test_it_stands_in_the_run_s_folder(run_folder: Path) -> None:
    path = write_report(run_folder)
    assert path == run_folder / REPORT_FILE
    assert path.read_text() == render_report(run_folder)


@pytest.mark.parametrize(
    ("missing", "heading"),
    [("evaluate", "Results"), ("publish", "Publishing"), ("sft", "What sft trains")],
)
def test_a_run_without_a_stage(run_folder: Path, missing: str, heading: str) -> None:
    write_plan(
        run_folder, [stage for stage in ("prepare", "pretrain", "sft", "evaluate", "publish") if stage != missing]
    )
    manifest = json.loads((run_folder / "manifest.json").read_text())
    del manifest["stages"][missing]
    (run_folder / "manifest.json").write_text(json.dumps(manifest))
    shutil.rmtree(run_folder / missing)
    text = render_report(run_folder)
    assert Page(text).open == []
    assert f"<h2>{heading}</h2>" not in text
    assert "<h2>Training</h2>" in text


def test_a_run_that_has_only_a_plan(tmp_path: Path) -> None:
    write_plan(tmp_path, ["pretrain", "evaluate"])
    text = render_report(tmp_path)
    assert "pretrain not begun" in text
    assert headings(Page(text), text) == ["Plan", "Lineage"]


def test_a_stage_that_failed_says_why(run_folder: Path) -> None:
    (run_folder / "sft" / "result.json").unlink()
    write_error(run_folder / "sft", StageError(type="ValueError", message="loss is <nan>"))
    text = render_report(run_folder)
    assert "sft failed" in text
    assert "ValueError" in text
    assert "loss is &lt;nan&gt;" in text


def test_metrics_torn_by_a_kill_are_drawn_as_far_as_they_go(run_folder: Path) -> None:
    (run_folder / "sft" / "result.json").unlink()
    with (run_folder / "sft" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "lo')
    text = render_report(run_folder)
    assert "sft unfinished" in text
    assert "<h3>sft</h3>" in text


def test_data_that_is_gone_costs_only_its_section(run_folder: Path) -> None:
    shutil.rmtree(run_folder.parent / "chats")
    text = render_report(run_folder)
    assert "What sft trains" not in text
    assert "<h2>Training</h2>" in text


def test_a_model_that_was_held_back(run_folder: Path) -> None:
    write_result(run_folder / "publish", publication(status="held back"))
    text = render_report(run_folder)
    assert '<span class="badge ">held back</span>' in text
    assert "better on colour" in text
    assert "+0.0500 (+0.0100 to +0.0900)" in text


def test_what_was_trained_on_is_said(run_folder: Path) -> None:
    found = {"tasks": {"kind": {"items": 40, "leaked": [3]}}, "looked_at": ["<web>"], "not_looked_at": ["chats"]}
    write_result(run_folder / "evaluate", evaluation(contamination=found))
    text = Page(render_report(run_folder)).text
    assert "1 of 40 items of kind (2.5%) were found in the training data (<web>)." in text
    assert "Not looked at: chats." in text


def test_a_limited_evaluation_says_so(run_folder: Path) -> None:
    write_result(run_folder / "evaluate", evaluation(limit=40))
    assert "(limit 40)" in render_report(run_folder)


def test_a_result_of_another_version_counts_as_not_there(run_folder: Path) -> None:
    (run_folder / "evaluate" / "result.json").write_text('{"stage": "evaluate", "unknown": 1}')
    assert "evaluate unfinished" in render_report(run_folder)


def test_a_folder_that_is_no_run_s(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"neither plan\.json nor manifest\.json"):
        write_report(tmp_path)


def test_what_the_names_of_the_scores_stand_for(run_folder: Path) -> None:
    digests = {"base": {"model.safetensors": "b" * 64}, "sft": {"model.safetensors": "5" * 64, "config.json": "c" * 64}}
    folders = {"base": Path("/elsewhere/base"), "sft": run_folder / "sft" / "export"}
    found = evaluation().model_copy(update={"digests": digests, "folders": folders})
    write_result(run_folder / "evaluate", found)
    text = Page(render_report(run_folder)).text
    assert f"base: /elsewhere/base, model.safetensors {'b' * 12}\n" in text
    assert f"sft: sft/export, model.safetensors {'5' * 12}\n" in text


def test_on_a_phone_each_score_stands_below_its_task_and_beside_its_model(run_folder: Path) -> None:
    """There the header isn't shown: each cell says itself what it is."""
    page = Page(render_report(run_folder))
    labels = [attributes.get("data-label") for tag, attributes in page.tags if tag == "td"]
    assert labels.count("base") == 3
    # And two settings as the stage has them.
    assert labels.count("sft") == 3 + 2
    assert labels.count("samples") == 2


def test_words_for_people(run_folder: Path) -> None:
    text = render_report(run_folder)
    assert "its logits differ by at most 1.2e-07 of the largest" in text
    assert not [word for word in ("parity", "greedy_tokens", "relative_error", "argmax") if word in text]


def test_on_a_phone_no_table_is_wider_than_the_screen(run_folder: Path) -> None:
    """Each is stacked there: its header isn't shown, and nothing else of it is hidden."""
    text = render_report(run_folder)
    tables = re.findall(r"<table([^>]*)>(.*?)</table>", text, re.DOTALL)
    assert len(tables) > 8
    for attributes, content in tables:
        assert 'class="stacked' in attributes
        rows = re.findall(r"<tr([^>]*)>(.*?)</tr>", content, re.DOTALL)
        assert all((given == ' class="head"') == ("<th" in cells) for given, cells in rows)


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_each_score_stands_beside_its_model_however_many_there_are(run_folder: Path, count: int) -> None:
    models = [f"model-{number}" for number in range(count)]
    scores = {model: {"colour": {"acc": number / 10}} for number, model in enumerate(models)}
    write_result(run_folder / "evaluate", evaluation(scores=scores, examples=[]))
    text = render_report(run_folder)
    row = next(row for row in text.split("<tr>") if row.startswith("<td>colour"))
    # Side by side up to three, and below each other from there on, so that none lies to the right of the page.
    assert row.count("</td>") == 4 + (count if count <= 3 else 1)
    shown = re.findall(r'(?:data-label="|<span>)(model-(?:<wbr>)?\d)"?(?:>|</span>)<div>([\d.]+)', row)
    expected = [(model, f"{number / 10:.3f}") for number, model in enumerate(models)]
    assert [(model.replace("<wbr>", ""), score) for model, score in shown] == expected


def test_a_long_name_may_go_on_in_the_next_line() -> None:
    assert breakable("exact_match,none") == "exact_<wbr>match,<wbr>none"
    assert breakable("a.yaml:12 <b>_c") == "a.<wbr>yaml:12 &lt;b&gt;_<wbr>c"
    assert breakable("0.001") == "0.001"

import json

from tasks.process.metrics_tail import MetricsTail


def line(step: int) -> str:
    return json.dumps({"step": step}) + "\n"


def test_each_line_comes_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    tail = MetricsTail(path)
    assert tail.read() == []
    path.write_text(line(1) + line(2))
    assert tail.read() == [{"step": 1}, {"step": 2}]
    assert tail.read() == []
    with path.open("a") as file:
        file.write(line(3))
    assert tail.read() == [{"step": 3}]


def test_a_half_written_line_waits_for_its_end(tmp_path):
    path = tmp_path / "metrics.jsonl"
    tail = MetricsTail(path)
    path.write_text(line(1) + '{"step"')
    assert tail.read() == [{"step": 1}]
    with path.open("a") as file:
        file.write(": 2}\n")
    assert tail.read() == [{"step": 2}]


def test_an_earlier_attempt_s_lines_are_skipped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(line(1))
    tail = MetricsTail(path)
    with path.open("a") as file:
        file.write(line(2))
    assert tail.read() == [{"step": 2}]


def replace(path, *steps):
    """Replaces the file, as titan.tracking.metrics_file does when a stage resumes."""
    new = path.with_suffix(".new")
    new.write_text("".join(line(step) for step in steps))
    new.replace(path)


def test_a_file_cut_back_by_a_resume_is_not_told_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(line(step) for step in range(1, 9)))
    tail = MetricsTail(path)
    replace(path, 1, 2)
    assert tail.read() == []
    with path.open("a") as file:
        file.write(line(3))
    assert tail.read() == [{"step": 3}]


def test_nothing_is_missed_when_a_cut_file_grew_before_the_next_look(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(line(1) + line(2) + line(3))
    tail = MetricsTail(path)
    replace(path, 1, 2, 30, 40, 50)
    assert [record["step"] for record in tail.read()] == [30, 40, 50]


def test_a_character_cut_in_two_is_read_whole(tmp_path):
    path = tmp_path / "metrics.jsonl"
    tail = MetricsTail(path)
    text = json.dumps({"note": "é"}, ensure_ascii=False).encode() + b"\n"
    cut = text.index("é".encode()) + 1
    path.write_bytes(text[:cut])
    assert tail.read() == []
    path.write_bytes(text)
    assert tail.read() == [{"note": "é"}]

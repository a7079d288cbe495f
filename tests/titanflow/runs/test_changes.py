from titanflow.runs.changes import Change, changes_reason, find_changes
from titanflow.runs.inputs import SourceFile, StageInputs


def inputs(**values: object) -> StageInputs:
    made = StageInputs()
    for key, value in values.items():
        made.add(key, value, f"file.yaml:{key}")
    return made


def test_what_is_equal_is_no_change_also_after_it_was_stored() -> None:
    made = inputs(a=1, b=float("inf"), c=float("nan"), d=(1, 2), e=None)
    stored = StageInputs.model_validate_json(made.model_dump_json())
    assert find_changes(stored, made) == []
    assert stored.fingerprint == made.fingerprint


def test_a_change_has_the_new_origin_and_a_removed_leaf_the_old() -> None:
    old, new = inputs(a=1, b=2), inputs(a=1.5)
    new.add("c", None, "here")
    assert find_changes(old, new) == [
        Change(key="a", old=1, new=1.5, origin="file.yaml:a"),
        Change(key="c", old=None, new=None, origin="here"),
        Change(key="b", old=2, new=None, origin="file.yaml:b"),
    ]


def test_content_is_named_by_file_and_a_renamed_one_is_none() -> None:
    def source(**files: str) -> StageInputs:
        made = StageInputs()
        states = {name: SourceFile(sha256=text, bytes=1, modified="now") for name, text in files.items()}
        made.add("data.path", sorted(files.values()), "text.yaml:2", states)
        return made

    changed = find_changes(source(a="1", b="2"), source(a="1", b="3", c="4"))
    assert [(one.key, bool(one.old), bool(one.new)) for one in changed] == [
        ("data.path: b", True, True),
        ("data.path: c", False, True),
    ]
    assert find_changes(source(a="1"), source(b="1")) == []


def test_a_reason_names_what_is_its_own_first() -> None:
    own = [Change(key=key) for key in ("a", "b", "c", "d")]
    parents = [Change(key="parent.pretrain"), Change(key="parent.sft")]
    assert changes_reason(own[:1]) == "1 value changed: a"
    assert changes_reason([*own, *parents]) == "4 values changed: a, b, c, …; pretrain and sft changed"
    assert changes_reason(parents) == "pretrain and sft changed"

"""Contradictions in a ``data`` section are found by the plan."""

import pytest

EXPERIMENT = """
    exp_name: checked
    modules:
      pretrain: {{config: pretrain.yaml, model: tiny.yaml}}
      sft:
        config: sft.yaml
        overrides:
          data: {data}
          chat: {chat}
    """
TWO = "mixture: {strategy: %s, sources: {a: {path: a.jsonl%s}, b: {path: b.jsonl}}}"


def message_of(write, mistakes, data: str, chat: str = "{}") -> str:
    return mistakes(write(experiments__exp=EXPERIMENT.format(data=data, chat=chat)))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("{kind: chat, path: a.jsonl, dataset: b}", ["sft.data.dataset: two sources: path and dataset"]),
        (
            "{kind: chat, path: a.jsonl, chat_format: sharegpt, columns: {prompt: q}}",
            ["exp.yaml:7: sft.data.columns: sharegpt has no 'prompt'", "expected: messages, role, content"],
        ),
        ("{kind: chat, path: a.jsonl, roles: {bot: robot}}", ["'bot' is given the role 'robot'"]),
        (
            "{kind: chat, path: a.jsonl, leave_out: [id, messages]}",
            ["sft.data.leave_out: conversations are read from 'messages'", "take it out of data.leave_out"],
        ),
        (
            "{kind: text, path: a.jsonl, leave_out: [id], malformed: drop}",
            ["malformed: found 'drop', which means nothing with kind: text"],
        ),
        (
            "{kind: chat, path: a.jsonl, text_column: body}",
            ["text_column: found 'body', which means nothing"],
        ),
        (
            "{kind: chat, path: a.jsonl, packing: worst_fit}",
            ["packing: found 'worst_fit'", "best_fit or null"],
        ),
        ("{kind: chat, path: c, %s}" % (TWO % ("interleave", "")), ["sft.data.path: two sources: path and mixture"]),
        ("{kind: chat, %s}" % (TWO % ("interleave", ", weight: 0")), ["sources.a.weight: found 0", "above 0"]),
        ("{kind: chat, %s}" % (TWO % ("concat", ", weight: 2")), ["sources.a.weight: sources that follow one another"]),
        (
            "{kind: chat, %s}" % (TWO % ("interleave", ", weight: 1.0e+308")),
            ["sources.a.weight: found 1e+308 beside 1 of b", "none is more than 1,000,000 times another"],
        ),
        (
            "{kind: chat, %s}" % (TWO % ("interleave", ", weight: 1.0e-7")),
            ["sources.b.weight: found 1 beside 1e-07 of a", "leave the lighter source out"],
        ),
        ("{kind: chat, %s}" % (TWO % ("concat", ", epochs: 1.0e+300")), ["sources.a.epochs: found 1e+300", "at most"]),
        ("{kind: chat, streaming: true, %s}" % (TWO % ("concat", "")), ["a mixture is read from prepared rows"]),
        ("{kind: chat, path: a.jsonl, limit: 0}", ["sft.data.limit: found 0", "1 or more"]),
        ("{kind: chat, path: a.jsonl, limit: -1}", ["sft.data.limit: found -1", "leave it out to read all rows"]),
        ("{kind: chat, mixture: {sources: {a: {path: a, limit: 0}}}}", ["sources.a.limit: found 0"]),
        (
            "{kind: chat, path: a.jsonl, document: line}",
            ["document: found 'line', which means nothing with kind: chat"],
        ),
        (
            "{kind: chat, path: a.jsonl, split: test, revision: v1}",
            ["data.split: found 'test', which means nothing without data.dataset", "data.revision: found 'v1'"],
        ),
        (
            "{kind: chat, mixture: {sources: {a: {path: a, config: en}}}}",
            ["sources.a.config: found 'en', which means nothing without data.dataset"],
        ),
        (
            "{kind: chat, mixture: {sources: {a: {weight: 2}}}}",
            ["mixture.sources.a: the source names no rows"],
        ),
        ("{kind: chat, mixture: {sources: {a: 3}}}", ["sft.data.mixture.sources.a: found 3", "a mapping"]),
        (
            "{kind: chat, mixture: {sources: {a: {path: a, kind: text, packing: best_fit}}}}",
            ["sources.a.packing: found 'best_fit', which means nothing with kind: text"],
        ),
    ],
)
def test_each_contradiction_is_named(write, mistakes, data: str, expected: list[str]) -> None:
    message = message_of(write, mistakes, data)
    for part in expected:
        assert part in message


def test_a_way_to_part_plain_text_needs_files(write, mistakes) -> None:
    overrides = "{data: {source: stdlib, document: line}}"
    module = f"{{config: pretrain.yaml, model: tiny.yaml, overrides: {overrides}}}"
    experiment = f"exp_name: e\nmodules:\n  pretrain: {module}\n"
    message = mistakes(write(experiments__exp=experiment))
    assert "pretrain.data.document: found 'line', which means nothing without data.path" in message


def test_a_number_of_rows_to_prove_is_not_negative(write, mistakes) -> None:
    message = message_of(write, mistakes, "{kind: chat, path: a.jsonl}", "{proof_rows: -1}")
    assert "sft.chat.proof_rows: found -1" in message


def test_what_chats_have_means_nothing_for_text(write, mistakes) -> None:
    path = write(modules__pretrain="data: {path: a.txt, overlong: error}\ntraining: {seq_len: 64}\n")
    assert "pretrain.data.overlong: found 'error', which means nothing with kind: text" in mistakes(path)


def test_a_mistake_that_the_held_out_part_takes_over_is_one_mistake(write, mistakes) -> None:
    data = "{kind: chat, path: a.jsonl, held_out: {dev: 5}, license: Apache 2.0, limit: 0}"
    said = message_of(write, mistakes, data + "\n          validation: {enable: true}")
    assert said.count("found 'Apache 2.0'") == said.count("found 0") == 1
    assert "validation_data" not in said

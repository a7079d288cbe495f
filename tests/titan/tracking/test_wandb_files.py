import json
import zlib

import pytest
from wandb.proto.wandb_internal_pb2 import HistoryItem, HistoryRecord, HistoryStep, Record

from titan.tracking.wandb_files import (
    BLOCK_BYTES,
    CHUNK,
    HEADER_BYTES,
    LAST,
    history,
    is_final,
    keep_steps,
    messages,
    packed,
    recordings,
)

HEADER = b":W&B\xe1\xbe\x00"


def row(step, size=0):
    items = [HistoryItem(nested_key=["train/loss"], value_json=json.dumps(1 / step))]
    if size:
        items.append(HistoryItem(nested_key=["note"], value_json=json.dumps("x" * size)))
    return Record(num=step, history=HistoryRecord(item=items, step=HistoryStep(num=step))).SerializeToString()


def recording(folder, contents, name="offline-run-20261121_020000-abc"):
    path = folder / "wandb" / name / "run-abc.wandb"
    path.parent.mkdir(parents=True)
    path.write_bytes(HEADER + packed(contents))
    return path


@pytest.mark.parametrize("gap", range(-1, 9))
def test_records_across_and_at_the_ends_of_blocks_are_whole(gap):
    """What is left of a block may hold a chunk's head and no content, or not even the head."""
    first = b"a" * (BLOCK_BYTES - HEADER_BYTES - 7 - gap)
    contents = [first, b"b" * 10, b"c" * (3 * BLOCK_BYTES), b"d"]
    assert list(messages(HEADER + packed(contents))) == contents


def test_a_torn_end_ends_the_recording_and_is_cut_off(tmp_path):
    path = recording(tmp_path, [row(1), row(2), row(3, size=50_000)])
    whole = path.read_bytes()
    for end in (len(whole) - 1, BLOCK_BYTES + 3, BLOCK_BYTES, 200):
        path.write_bytes(whole[:end])
        assert [step for step, _ in history(path)] == [1, 2]
    assert keep_steps(path, range(10)) == {1, 2}
    assert path.read_bytes() == HEADER + packed([row(1), row(2)])


def test_a_damaged_chunk_ends_the_recording(tmp_path):
    path = recording(tmp_path, [row(1), row(2), row(3)])
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(bytes(data))
    assert [step for step, _ in history(path)] == [1, 2]


def test_only_the_history_is_cut(tmp_path):
    other = Record(num=9).SerializeToString()
    path = recording(tmp_path, [other, row(1), row(2), other, row(3)])
    assert keep_steps(path, {1, 3}) == {1, 3}
    assert list(messages(path.read_bytes())) == [other, row(1), other, row(3)]
    assert history(path) == [(1, {"train/loss": 1.0}), (3, {"train/loss": 1 / 3})]


def test_a_recording_in_another_format_is_left_as_it_is(tmp_path):
    # A chunk that ends a record of which none began: LevelDB's logs have none.
    path = recording(tmp_path, [row(1)])
    data = path.read_bytes()
    stray = CHUNK.pack(zlib.crc32(bytes([LAST]) + b"new"), 3, LAST) + b"new"
    path.write_bytes(data + stray + packed([row(2)]))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"run-abc\.wandb: wandb \S+ records otherwise than 0\.31 did"):
        keep_steps(path, {1})
    assert path.read_bytes() == before


def test_an_empty_file_holds_nothing(tmp_path):
    path = recording(tmp_path, [])
    path.write_bytes(b"")
    assert history(path) == []
    assert keep_steps(path, {1}) == set()


def test_a_runs_recordings_come_in_the_order_in_which_they_began(tmp_path):
    second = recording(tmp_path, [], "offline-run-20261121_030000-abc")
    first = recording(tmp_path, [], "run-20261121_020000-abc")
    recording(tmp_path, [], "offline-run-20261121_010000-other")
    assert recordings(tmp_path, "abc") == [first, second]
    assert is_final(first)
    assert not is_final(second)
    (second.parent / "run-abc.wandb.synced").touch()
    assert is_final(second)

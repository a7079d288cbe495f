import json
from dataclasses import replace
from itertools import islice

import pytest
import torch
from torchtitan.components.tokenizer import build_hf_tokenizer
from torchtitan.config import JobConfig
from torchtitan.hf_datasets.text_datasets import DATASETS, build_text_dataloader

from titan.train.streaming import check_ranks, open_stream, streamed
from titanflow.common.errors import ConfigError, DataError
from titanflow.config.keys.training import PARTS, Data, HeldOut
from titanflow.data.files.text_source import load_text
from titanflow.data.held_out.parts import part_of
from titanflow.data.parts.work import Work

WORDS = ["the quick brown fox", "jumps over", "the lazy dog", "and the fox", "is quick"]


@pytest.fixture
def config(shared_data):
    config = JobConfig()
    config.model.hf_assets_path = str(shared_data / "tokenizer")
    config.training.seq_len = 16
    config.training.local_batch_size = 2
    return config


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number:02}.txt").write_text(" ".join(WORDS[number % 5 :] + WORDS[: number % 5]) + "\n\nend")
    return folder


def loader(config, data):
    config = streamed(config, data, "training")
    return build_text_dataloader(1, 0, build_hf_tokenizer(config), config)


def tokens(batches):
    return torch.cat([input_dict["input"] for input_dict, _ in batches])


def test_a_folder_of_files_is_streamed_a_document_a_file(texts):
    samples = list(open_stream(Data(path=str(texts))))
    assert len(samples) == 20
    assert samples[0]["text"] == (texts / "00.txt").read_text()
    assert len(list(open_stream(Data(path=str(texts), limit=3)))) == 3
    assert len(list(open_stream(Data(path=str(texts / "1*.txt"))))) == 10


def test_json_lines_with_a_column_of_their_own(tmp_path, config):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"body": word * 9}) + "\n" for word in WORDS))
    stream = loader(config, Data(path=str(path), text_column="body"))
    assert tokens(islice(stream, 2)).shape == (4, 16)
    with pytest.raises(DataError, match=r"rows\.jsonl has no column 'text'; it has: body"):
        next(iter(loader(config, Data(path=str(path)))))


def test_the_config_given_stays_as_it_was(config, texts):
    changed = streamed(config, Data(path=str(texts)), "training")
    assert changed.training.dataset in DATASETS
    assert (config.training.dataset, changed.training.seq_len) == ("c4_test", 16)


def test_a_stream_goes_on_from_its_state(config, texts):
    data = Data(path=str(texts))
    whole = tokens(islice(loader(config, data), 6))
    first = loader(config, data)
    batches = iter(first)
    head = tokens([next(batches) for _ in range(3)])
    second = loader(config, data)
    second.load_state_dict(first.state_dict())
    assert torch.equal(torch.cat([head, tokens(islice(second, 3))]), whole)


@pytest.mark.parametrize("ranks", [1, 4])
def test_another_number_of_ranks_is_refused(ranks):
    keys = ["norm.weight", "dataloader.dp_rank_0", "dataloader.dp_rank_1", "dataloader.world_size"]
    check_ranks(keys, 2)
    with pytest.raises(ConfigError, match=f"saved by 2 data-parallel ranks, and this run has {ranks}"):
        check_ranks(keys, ranks)


def test_prepared_data_may_be_resumed_on_any_number_of_ranks():
    check_ranks(["norm.weight", "dataloader.rows_seen"], 7)


def test_files_of_every_kind_are_streamed_together_as_they_are_prepared(tmp_path):
    folder = tmp_path / "a[1]"
    folder.mkdir()
    (folder / "b?.txt").write_text("plain")
    (folder / "c.jsonl").write_text('{"text": "row"}\n')
    data = Data(path=str(folder))
    prepared = load_text(data, Work(1, tmp_path / "cache")).rows["text"]
    assert [sample["text"] for sample in open_stream(data)] == list(prepared) == ["plain", "row"]


def test_files_that_are_not_there_or_not_known_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"the pattern .* has no file to read"):
        open_stream(Data(path=str(tmp_path / "*.txt")))
    (tmp_path / "c.xyz").write_text("c")
    with pytest.raises(DataError, match=r"an ending that isn't known: \.xyz"):
        open_stream(Data(path=str(tmp_path / "c.xyz")))


@pytest.fixture
def divided(tmp_path):
    for number in range(2):
        rows = (json.dumps({"text": f"Document {number} {row}"}) + "\n" for row in range(100))
        (tmp_path / f"{number}.jsonl").write_text("".join(rows))

    def data(part, **held_out):
        return Data(name="d", path=str(tmp_path / "*.jsonl"), held_out=held_out, part=part)

    return data


def test_a_stream_has_the_parts_that_the_preparation_makes(divided, tmp_path):
    work = Work(1, tmp_path)
    for part in PARTS:
        data = divided(part, dev=0.2, test=0.1)
        prepared = part_of(load_text(data, Work(1, tmp_path / "cache")), data, work)
        assert [sample["text"] for sample in open_stream(data)] == list(prepared.rows["text"])


def test_a_dataset_that_is_streamed_has_parts_by_its_own_column(divided, tmp_path):
    named = divided("dev", dev=0.2)
    texts = [sample["text"] for sample in open_stream(replace(named, part=None, held_out=HeldOut()))]
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.jsonl").write_text("".join(json.dumps({"body": text}) + "\n" for text in texts))
    found = open_stream(replace(named, path=None, dataset=str(tmp_path / "set"), text_column="body"))
    assert [sample["body"] for sample in found] == [sample["text"] for sample in open_stream(named)]


def test_a_stream_of_a_part_goes_on_from_its_state(divided):
    stream = open_stream(divided("train", dev=0.3))
    whole = [sample["text"] for sample in stream]
    begun = iter(stream)
    read = [next(begun)["text"] for _ in range(50)]
    state = stream.state_dict()
    resumed = open_stream(divided("train", dev=0.3))
    resumed.load_state_dict(state)
    assert read + [sample["text"] for sample in resumed] == whole


def test_a_stream_without_a_row_of_its_part_is_refused(divided):
    with pytest.raises(DataError, match=r"data.held_out: the stream has no row of the test part"):
        open_stream(divided("test", test=1e-12))

"""Refuses tokenizers that would encode differently in inference than in training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from titanflow.common.errors import DataError, Problem
from titanflow.data.tokenizer.tokenizer import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    LoadedTokenizer,
    described_tokenizer,
    inference_tokenizer,
    load_tokenizer,
)
from titanflow.data.tokenizer.words import PROBE, part_words_as_qwen2

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def encodes_otherwise(loaded: Any, trained: LoadedTokenizer) -> bool:
    """Whether a tokenizer of transformers encodes a text unlike training does, alone or behind the end of text."""
    (opening,), (following,) = (trained.text.encode_batch([PROBE], place) for place in ("opening", "following"))
    end = loaded.convert_ids_to_tokens(trained.end_of_text_id)
    texts = {PROBE: opening, end + PROBE: [trained.end_of_text_id, *following]}
    return any(loaded.encode(text, add_special_tokens=False) != ids for text, ids in texts.items())


def check_given(folder: Path) -> None:
    """Refuses a given tokenizer that could not be exported, before it is used.

    That is one that can't be loaded, or whose end of text transformers doesn't find in every place.
    """
    trained = load_tokenizer(folder)
    if encodes_otherwise(inference_tokenizer(folder), trained):
        end = trained.backend.id_to_token(trained.end_of_text_id)
        found = f"transformers encodes a text behind {end} otherwise than by itself"
        expected = "an end of text that is a token wherever it stands"
        hint = f"split_special_tokens in {CONFIG_FILE} turns that off, and single_word in {TOKENIZER_FILE}"
        raise DataError(Problem(found, "tokenizer.path", str(folder / CONFIG_FILE), expected, hint))


def loaded_size(folder: Path | None) -> int:
    """How many embeddings inference may need: some classes of transformers add tokens; 0 without a tokenizer."""
    if folder is None or not _is_there(folder):
        return 0
    return int(max(inference_tokenizer(folder).get_vocab().values())) + 1


def check_words(folder: Path) -> None:
    """Refuses a tokenizer that would encode differently once transformers loads it with a ``qwen2`` model."""
    if not _is_there(folder):
        return
    loaded = described_tokenizer(folder)
    part_words_as_qwen2(loaded)
    if inference_tokenizer(folder).encode(PROBE, add_special_tokens=False) != _ids(loaded):
        found = "its words aren't Qwen2's, and transformers would load it as a Qwen2Tokenizer, which encodes otherwise"
        expected = "a tokenizer of Qwen2.5, or none, so that one is trained here"
        raise DataError(Problem(found, "tokenizer.path", str(folder / TOKENIZER_FILE), expected))


def check_streamed(folder: Path) -> None:
    """Refuses a tokenizer that encodes streamed text differently than inference does.

    torchtitan follows ``tokenizer.json``, while transformers rebuilds some tokenizers from their class.
    """
    if not _is_there(folder):
        return
    loaded = inference_tokenizer(folder)
    if loaded.encode(PROBE, add_special_tokens=False) != _ids(described_tokenizer(folder)):
        found = (
            f"transformers loads it as {type(loaded).__name__}, which encodes otherwise than its {TOKENIZER_FILE}, "
            "and streamed text is encoded as that describes"
        )
        expected = "data that is prepared, or a tokenizer whose class is PreTrainedTokenizerFast"
        raise DataError(Problem(found, "data.streaming", str(folder / TOKENIZER_FILE), expected))


def _is_there(folder: Path) -> bool:
    return (folder / TOKENIZER_FILE).is_file() and (folder / CONFIG_FILE).is_file()


def _ids(tokenizer: Tokenizer) -> list[int]:
    return list(tokenizer.encode(PROBE, add_special_tokens=False).ids)

"""Makes the GGUF files of an exported folder, and proves each with llama.cpp before it is put in its place.

``python -m titan.gguf.make FOLDER OUT --name NAME --formats f16 q8_0 --of DIGEST [--rows ROWS] [--chats]`` writes
``OUT/NAME-F16.gguf`` and so on, a ``Modelfile`` and ``proof.json``. A file that fails its proof leaves nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from titan.gguf.modelfile import modelfile
from titan.gguf.proof import Reference, prove
from titan.gguf.vocabulary import Vocabulary
from titan.gguf.write import FILE_TYPES, read_config, write_gguf
from titan.process.quiet import quiet_transformers
from titanflow.common.digests import file_digest
from titanflow.common.errors import TitanflowError
from titanflow.publish.bundle import MODELFILE
from titanflow.publish.gguf import PROOF_FILE, file_name, partial_folder
from titanflow.runs.torchrun import end_with_starter


def make_gguf(
    folder: Path,
    out: Path,
    name: str,
    formats: Sequence[str],
    rows: Path | None = None,
    chats: bool = False,
    of: str = "",
) -> None:
    """Writes the files of an exported folder into ``out``, which replaces an older one, once all are proved.

    Args:
        folder: the export.
        out: the folder to make.
        name: the model's name, with which each file's name begins.
        formats: f32, f16, bf16 or q8_0.
        rows: prepared rows, from which texts of the proof are taken.
        chats: whether the model answers in conversations.
        of: what the files are made of, as a digest that ``proof.json`` repeats.

    Raises:
        ConfigError: llama.cpp can't follow the tokenizer.
        StageFailed: llama.cpp does otherwise than the evaluated model, or has no such model.
    """
    import torch

    from titan.weights.hf_folder import load_folder, load_tokenizer

    quiet_transformers()
    tokenizer, config = load_tokenizer(folder), read_config(folder)
    stops = Vocabulary.read(folder, config["vocab_size"]).stops
    partial = partial_folder(out)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        model, _ = load_folder(folder, torch.float32)
        reference = Reference.read(model, tokenizer, rows, stops)
        # The model's memory is llama.cpp's now.
        del model
        digests, proofs = {}, {}
        # float32 comes first, asked for or not: rounding would hide a small mistake of the conversion.
        for kind in dict.fromkeys(("f32", *formats)):
            path = partial / file_name(name, kind)
            write_gguf(folder, path, kind, name)
            # Taken before the proof: a file that changes behind it isn't the one that was proved.
            sha256, proof = file_digest(path), prove(path, kind, reference)
            if kind in formats:
                digests[path.name], proofs[path.name] = sha256, proof.model_dump()
            else:
                path.unlink()
        texts = tokenizer.convert_ids_to_tokens(list(stops))
        text = modelfile(file_name(name, formats[0]), name, tokenizer, texts, config["max_position_embeddings"], chats)
        (partial / MODELFILE).write_text(text, encoding="utf-8")
        digests[MODELFILE] = file_digest(partial / MODELFILE)
        record = {"of": of, "files": digests, "proofs": proofs}
        (partial / PROOF_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(out, ignore_errors=True)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m titan.gguf.make", description=__doc__)
    parser.add_argument("folder", type=Path, help="an exported model")
    parser.add_argument("out", type=Path, help="the folder to make")
    parser.add_argument("--name", required=True, help="the model's name")
    parser.add_argument("--formats", nargs="+", choices=tuple(FILE_TYPES), required=True, help="formats of the weights")
    parser.add_argument("--rows", type=Path, help="prepared rows, whose texts are compared too")
    parser.add_argument("--chats", action="store_true", help="the model answers in conversations")
    parser.add_argument("--of", default="", help="a digest of what the files are made of")
    given = parser.parse_args(arguments)
    try:
        make_gguf(given.folder, given.out, given.name, given.formats, given.rows, given.chats, given.of)
    except TitanflowError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        # Most likely the disk is full, which needs no traceback.
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    end_with_starter()
    sys.exit(main())

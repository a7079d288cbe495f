"""Prepares text with so many processes: ``prepare_text.py CORPUS TOKENIZER FOLDER PROCESSES``."""

from __future__ import annotations

import sys
from pathlib import Path

from titanflow.data.prepare import leave_out_torch


def main(corpus: Path, tokenizer: Path, folder: Path, processes: int) -> None:
    from titanflow.config.keys.training import Data
    from titanflow.data.files.text_source import load_text
    from titanflow.data.files.tokenise_text import write_text
    from titanflow.data.parts.work import Work

    data, work = Data(name="corpus", path=str(corpus)), Work(processes, folder)
    out = folder / "out"
    out.mkdir()
    write_text(load_text(data, work), data, tokenizer, "", out, work)


if __name__ == "__main__":
    leave_out_torch()
    main(*map(Path, sys.argv[1:4]), int(sys.argv[4]))

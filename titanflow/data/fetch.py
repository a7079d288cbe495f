"""Fetches what a prepare stage needs of the Hub into the Hub's cache: ``python -m titanflow.data.fetch run.yaml``.

For a stage that is a job of a cluster: its nodes may have no internet, but share the cache (``HF_HOME``).
"""

from __future__ import annotations

import sys
from pathlib import Path

from titanflow.architectures.huggingface import download_weights
from titanflow.common.files import expanded
from titanflow.data.dataset_info import is_complete
from titanflow.data.files.sources import load_from_hub
from titanflow.data.prepare_plan import PreparePlan
from titanflow.data.tokenizer.hf_tokenizer import download_tokenizer
from titanflow.runs.contract import StageRun
from titanflow.runs.errors import record_failure


def fetch(plan: PreparePlan) -> None:
    """Fetches the tokenizer, the weights and the datasets that are still to be prepared.

    Raises:
        ConfigError: something isn't there, or the Hub can't be reached.
    """
    tokenizer = plan.tokenizer
    if tokenizer is not None and tokenizer.repo_id and not tokenizer.is_there:
        download_tokenizer(tokenizer.repo_id, tokenizer.revision)
    for model in plan.weights:
        download_weights(model.repo_id, model.revision, model.folder)
    texts = tokenizer.texts if tokenizer is not None and not tokenizer.is_there and tokenizer.train_on else []
    for data in [*texts, *(one.config for one in plan.datasets if not is_complete(one.folder))]:
        if data.dataset and not expanded(data.dataset).is_dir():
            load_from_hub(data)


def main(arguments: list[str]) -> int:
    """Returns the exit status: 2 for what isn't there."""
    run = StageRun.read(Path(arguments[0]))
    try:
        fetch(PreparePlan.model_validate(run.config))
    except Exception as error:
        return record_failure(run.folder, error)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""How the programs of ``peers/`` are started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from frame.processes import python
from frame.stage import peer_steps
from frame.trainings import Side

PEERS = Path(__file__).parents[1] / "peers"


def trl_side(
    trainer: str, model: Path, data: Path, config: dict[str, Any], folder: Path, lora: dict[str, Any] | None = None
) -> Side:
    """A trainer of TRL's, ``sft`` or ``dpo``, with its settings."""
    folder.mkdir(parents=True)
    settings = {"trainer": trainer, "model": str(model), "data": str(data), "config": config, "lora": lora}
    path, records = folder / "settings.json", folder / "records.jsonl"
    path.write_text(json.dumps({**settings, "records": str(records)}))
    return Side("TRL", python(PEERS / "trl_train.py", path), records, peer_steps, {})

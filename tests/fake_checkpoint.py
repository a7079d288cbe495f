"""Checkpoints as torch's distributed checkpoint leaves them, written without torch: archives and where they lie."""

import io
import pickle
import zipfile
from pathlib import Path
from types import SimpleNamespace

DATA_FILE = "__0_0.distcp"


def write_checkpoint(path: Path, keys: tuple[str, ...] = ("norm.weight", "optimizer.state.norm.weight")) -> Path:
    """Writes a complete ``step-N`` folder that holds some bytes under each key; returns it."""
    path.mkdir(parents=True, exist_ok=True)
    data, places = b"", {}
    for number, key in enumerate(keys):
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("archive/data/0", bytes([number + 1]) * 400)
        piece = archive.getvalue()
        places[key] = SimpleNamespace(relative_path=DATA_FILE, offset=len(data), length=len(piece))
        data += piece
    (path / DATA_FILE).write_bytes(data)
    metadata = SimpleNamespace(state_dict_metadata=dict.fromkeys(keys), storage_data=places)
    (path / ".metadata").write_bytes(pickle.dumps(metadata))
    return path

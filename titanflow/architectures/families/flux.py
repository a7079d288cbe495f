"""flux, which makes images."""

from __future__ import annotations

from titanflow.architectures.family import Family

FAMILY = Family(name="flux", own_masks="it is no language model", own_loss=True)

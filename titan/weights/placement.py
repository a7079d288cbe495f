"""The type and the device that a caller names for a model, checked before a large model is read."""

from __future__ import annotations

from typing import Any

import torch

from titanflow.common.errors import ConfigError, Problem


def torch_type(given: Any) -> Any:
    """A floating-point type of torch that a model computes in, or ``auto``.

    Raises:
        ConfigError: it is none.
    """
    found = getattr(torch, given.removeprefix("torch."), None) if isinstance(given, str) else given
    if given == "auto" or (isinstance(found, torch.dtype) and found.is_floating_point and found.itemsize > 1):
        return "auto" if given == "auto" else found
    expected = "auto, float32, bfloat16, float16 or float64"
    raise ConfigError(Problem(f"found {given!r}", "dtype", expected=expected))


def torch_device(given: Any) -> torch.device:
    """A device that is here.

    Raises:
        ConfigError: torch can't put anything there.
    """
    try:
        torch.empty(0, device=given)
        return torch.device(given)
    except (RuntimeError, AssertionError, TypeError) as error:
        said = str(error).partition("\n")[0]
        expected = "cpu, cuda, cuda:1, … as torch names the devices of this machine"
        raise ConfigError(Problem(f"found {given!r}: {said}", "device", expected=expected)) from error

"""The matrices that Muon would step: their number, their size, and the operations of a step."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from titanflow.architectures.blocks import Shapes
from titanflow.architectures.weights import is_hidden_matrix


@dataclass(frozen=True)
class Matrices:
    """Trained matrices of layers.

    ``tensors`` hold them, a layer's experts in one, with ``parameters`` in all. The largest matrix has ``largest``
    numbers, the largest tensor of experts ``stacked``. One step of Newton–Schulz takes ``flops`` for all of them.
    """

    tensors: int = 0
    parameters: int = 0
    largest: int = 0
    stacked: int = 0
    flops: int = 0

    @classmethod
    def of(cls, trained: Shapes) -> Matrices:
        """Counts those among the weights that a stage trains."""
        shapes = [shape for name, shape in trained.items() if is_hidden_matrix(name, shape)]
        return cls(
            tensors=len(shapes),
            parameters=sum(map(prod, shapes)),
            largest=max((prod(shape[-2:]) for shape in shapes), default=0),
            stacked=max((prod(shape) for shape in shapes if len(shape) == 3), default=0),
            flops=sum(map(_newton_schulz, shapes)),
        )


NO_MATRICES = Matrices()


def _newton_schulz(shape: tuple[int, ...]) -> int:
    """Three products: the matrix with itself (m×m of m×n), that with itself, and the result with the matrix."""
    *experts, rows, columns = shape
    m, n = sorted((rows, columns))
    return prod(experts) * (4 * m * m * n + 2 * m**3)

"""The rows of a step, as the order has them."""

import numpy as np
from numpy.typing import NDArray

from titanflow.data.order import Order


def global_batch(order: Order, step: int, size: int) -> NDArray[np.int64]:
    return order.at(np.arange(step * size, (step + 1) * size, dtype=np.int64))

"""How many threads torch uses for an operation, for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """``count`` torch threads an operation while inside, then as many as before.

    Sums are cut up by threads, so a plan of generation fixes their number; where a program has its own threads, or
    its operations are small, one each is best.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""Precision on a GPU: float32 is float32, and a convolution gives the same sums every time.

PyTorch's defaults let cuDNN round the inputs of float32 convolutions to TF32 and choose algorithms by timing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def as_asked() -> Iterator[None]:
    """No TF32, no choice by timing, no algorithm that sums in changing order, while inside; no effect on a CPU."""
    products = torch.backends.cuda.matmul
    before = products.allow_tf32
    with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, benchmark=False, deterministic=True,
                                    allow_tf32=False):
        products.allow_tf32 = False
        try:
            yield
        finally:
            products.allow_tf32 = before

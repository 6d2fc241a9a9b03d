"""Layers of recognisers whose gradients take a fraction of torch's time on a processor; same weights, same answers.

torch's PReLU gradient selects by masks, which is not vectorised, and oneDNN has no fast bf16 gradient of a depthwise
convolution with stride. On other devices, and without gradients, these are torch's own layers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

BLOCK = 1 << 17  # numbers at a time: four blocks stay in the cache of a core


class _PReLUGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, slopes: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, slopes)
        return torch.prelu(hidden, slopes.to(hidden.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        hidden, slopes = ctx.saved_tensors
        into = torch.empty_like(hidden)
        inside, outside, found = (_pixels(item) for item in (hidden, gradient, into))
        weights, total = slopes.to(hidden.dtype), torch.zeros_like(slopes)
        step = max(1, BLOCK // len(slopes))
        scratch = torch.empty_like(inside[:step])
        for start in range(0, len(inside), step):
            values, given, out = (item[start : start + step] for item in (inside, outside, found))
            below = scratch[: len(values)]
            torch.ops.aten.threshold_backward.grad_input(given, values, 0, grad_input=out)
            torch.sub(given, out, out=below)
            torch.addcmul(out, below, weights, out=out)
            total += below.mul_(values).sum(0)
        return into, total


class PReLU(nn.PReLU):
    """``nn.PReLU`` over channels."""

    def forward(self, hidden: Tensor) -> Tensor:
        if _trains_on_processor(hidden) and self.num_parameters == hidden.shape[1]:
            return _PReLUGradient.apply(hidden, self.weight)
        return super().forward(hidden)


class _StridedDepthwiseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        ctx.layout = ([stride] * 2, [padding] * 2, [1, 1], False, [0, 0], len(weight))
        return torch.conv2d(hidden, weight.to(hidden.dtype), None, stride, padding, 1, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        hidden, weight = ctx.saved_tensors
        found, moved, _ = torch.ops.aten.convolution_backward(
            gradient.float(), hidden.float(), weight.float(), None, *ctx.layout, [True, True, False])
        return found.to(hidden.dtype), moved.to(weight.dtype), None, None


class StridedDepthwise(nn.Conv2d):
    """A depthwise ``nn.Conv2d`` with stride and without bias; the gradient of a bf16 one is computed in fp32."""

    def __init__(self, channels: int, size: int, stride: int):
        super().__init__(channels, channels, size, stride, size // 2, groups=channels, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        if _trains_on_processor(hidden) and hidden.dtype == torch.bfloat16:
            return _StridedDepthwiseGradient.apply(hidden, self.weight, self.stride[0], self.padding[0])
        return super().forward(hidden)


def _trains_on_processor(hidden: Tensor) -> bool:
    wanted = hidden.device.type == "cpu" and torch.is_grad_enabled() and hidden.ndim == 4
    return wanted and hidden.is_contiguous(memory_format=torch.channels_last)


def _pixels(hidden: Tensor) -> Tensor:
    """``[n, c, h, w]`` as rows of channels, ``[n·h·w, c]``; in place where channels come last in memory."""
    return hidden.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).reshape(-1, hidden.shape[1])

"""Blocks of the IDiff-Face U-Net (arXiv 2308.04995): residual block with adaptive norm, self- and cross-attention.

Attribute names follow the released state dict, so a published checkpoint loads key by key.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from negface.foundation.errors import InputError

NORM_GROUPS = 32
CONTEXT_TOKENS = 32
WIDE_KERNEL, FEW_CELLS = 128 * 1024, 16
"""Input times output channels from which, and cells up to which, products are faster than a convolution on a CPU."""

Modulation = tuple[Tensor, Tensor]
"""Scale and shift ``[n or 1, channels]`` of an adaptive norm."""


def spread(hidden: Tensor, rows: int) -> Tensor:
    """``hidden`` ``[m, ...]`` repeated to ``rows`` rows (branch after branch) where m divides them; else as it is.

    Called where the context first enters: what comes before is the same for every branch and computed once.
    """
    # repeat() would lose channels last.
    return hidden if rows <= len(hidden) else torch.cat([hidden] * (rows // len(hidden)))


def group_norm(channels: int, group_channels: int | None, eps: float = 1e-5) -> nn.GroupNorm:
    """32 groups, as published, or groups of ``group_channels`` (16 fills a CPU vector and is several times faster)."""
    if group_channels is not None and channels % group_channels:
        raise InputError(f"group_channels {group_channels} does not divide {channels} channels", where="group norm")
    return nn.GroupNorm(NORM_GROUPS if group_channels is None else channels // group_channels, channels, eps=eps)


def timestep_embedding(timesteps: Tensor, width: int, max_period: float = 10_000.0) -> Tensor:
    """Sinusoidal embedding ``[n] -> [n, width]``, cosines first (arXiv 1706.03762, sec. 3.5)."""
    half = width // 2
    frequencies = torch.exp(
        -math.log(max_period) * torch.arange(half, device=timesteps.device, dtype=torch.float32) / half
    )
    angles = timesteps.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class Conv3x3(nn.Conv2d):
    """3×3 convolution with padding 1; wide ones over few cells are matrix products where a CPU predicts.

    Convolution kernels rearrange the weights at every call: from 1,536 to 768 channels over 4×4 cells that takes
    longer than the work itself. Products read channels-last weights as they lie.
    """

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__(channels_in, channels_out, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        wide = self.in_channels * self.out_channels >= WIDE_KERNEL and hidden.shape[2] * hidden.shape[3] <= FEW_CELLS
        if wide and _lies_as_tokens(hidden):
            return _convolve_rows(hidden, self.weight, self.bias)
        return super().forward(hidden)


def _convolve_rows(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """3×3 convolution with padding 1 as three products, one for each row of the kernel.

    What the padding above and below adds is not multiplied: over 4×4 cells a sixth of the work is saved.
    """
    n, channels, h, w = hidden.shape
    padded = F.pad(hidden.permute(2, 0, 3, 1), (0, 0, 1, 1))
    cells = padded.unfold(2, 3, 1).transpose(3, 4).reshape(h * n * w, 3 * channels)
    above, middle, below = weight.permute(2, 0, 3, 1).flatten(2)
    out, row = F.linear(cells, middle, bias), n * w
    out[row:].addmm_(cells[:-row], above.t())
    out[:-row].addmm_(cells[row:], below.t())
    return out.reshape(h, n, w, -1).permute(1, 3, 0, 2).contiguous(memory_format=torch.channels_last)


def _lies_as_tokens(hidden: Tensor) -> bool:
    """Whether a CPU predicts (not trains) on channels-last values ``[n, c, h, w]``: in memory ``[n, h · w, c]``."""
    predicts = hidden.device.type == "cpu" and not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
    return predicts and hidden.is_contiguous(memory_format=torch.channels_last)


class TimeEmbedding(nn.Module):
    """Sinusoid of the initial width, two linear layers with SiLU between."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width
        self.lin1 = nn.Linear(width, 4 * width)
        self.lin2 = nn.Linear(4 * width, 4 * width)

    def forward(self, timesteps: Tensor) -> Tensor:
        return self.lin2(F.silu(self.lin1(timestep_embedding(timesteps, self.width).to(self.lin1.weight.dtype))))


class AdaptiveNorm(nn.Module):
    """``GN(h)·(1 + scale) + shift``; holds only the norm, scale and shift come from the block."""

    def __init__(self, channels: int, group_channels: int | None):
        super().__init__()
        self.norm = group_norm(channels, group_channels)

    def forward(self, hidden: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return torch.addcmul(shift[:, :, None, None], self.norm(hidden), 1 + scale[:, :, None, None])


class ResBlock(nn.Module):
    """GN-SiLU-conv-AdaGN-SiLU-conv with a shortcut; the context enters AdaGN where ``context_channels`` is given."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        time_channels: int,
        context_channels: int | None,
        group_channels: int | None = None,
    ):
        super().__init__()
        self.norm1 = group_norm(channels_in, group_channels)
        self.conv1 = Conv3x3(channels_in, channels_out)
        self.time_emb = nn.Sequential(nn.SiLU(), nn.Linear(time_channels, channels_out))
        if context_channels is not None:
            self.context_emb = nn.Sequential(nn.SiLU(), nn.Linear(context_channels, channels_out))
        else:
            self.context_emb = None
        self.scale_emb = nn.Linear(channels_out, channels_out)
        self.shift_emb = nn.Linear(channels_out, channels_out)
        self.norm2 = AdaptiveNorm(channels_out, group_channels)
        self.conv2 = Conv3x3(channels_out, channels_out)
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else None
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def modulation(self, time: Tensor, context: Tensor | None) -> Modulation:
        """Scale and shift of the adaptive norm, from embeddings ``[n, ...]`` of the time and (AdaGN) the context.

        Without a context: the part that the time decides. Scale and shift are linear, so the parts add up.
        """
        condition = self.time_emb(time)
        if self.context_emb is not None and context is not None:
            condition = spread(condition, len(context)) + self.context_emb(context)
        return self.scale_emb(condition), self.shift_emb(condition)

    def context_modulation(self, context: Tensor) -> Modulation:
        """The part of ``modulation`` that the context decides (AdaGN)."""
        condition = self.context_emb(context)
        return F.linear(condition, self.scale_emb.weight), F.linear(condition, self.shift_emb.weight)

    def forward(self, hidden: Tensor, modulation: Modulation) -> Tensor:
        rows = max(len(hidden), len(modulation[0]))
        residual = hidden if self.shortcut is None else self._shortcut(hidden)
        hidden = spread(self.conv1(F.silu(self.norm1(hidden))), rows)
        scale, shift = (spread(part, rows) for part in modulation)
        return spread(residual, rows) + self.conv2(F.silu(self.norm2(hidden, scale, shift)))

    def _shortcut(self, hidden: Tensor) -> Tensor:
        return _linear(self.shortcut, hidden) if _lies_as_tokens(hidden) else self.shortcut(hidden)


def attend(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Softmax attention over ``[n, heads, length, head_channels]``, scaled by 1/√head_channels.

    Fused, but for training on a CPU, where the fused backward pass is 5 to 15 times slower than matrix products.
    """
    if query.device.type == "cpu" and torch.is_grad_enabled() and query.requires_grad:
        scores = torch.matmul(query * query.shape[-1] ** -0.5, keys.transpose(2, 3))
        return torch.matmul(torch.softmax(scores.float(), dim=-1).to(values.dtype), values)
    return F.scaled_dot_product_attention(query, keys, values)


class Attention(nn.Module):
    """Multi-head attention over ``[n, c, length]`` with width-1 convolutions as projections (fused kernel)."""

    def __init__(self, channels: int, context_channels: int | None, head_channels: int):
        super().__init__()
        source = channels if context_channels is None else context_channels
        self.heads = channels // head_channels
        self.to_q = nn.Conv1d(channels, channels, 1)
        self.to_k = nn.Conv1d(source, channels, 1)
        self.to_v = nn.Conv1d(source, channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def split(self, flat: Tensor) -> Tensor:
        """``[n, c, length] -> [n, heads, length, head_channels]``."""
        n, channels, length = flat.shape
        return flat.reshape(n, self.heads, channels // self.heads, length).transpose(2, 3)

    def keys_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a source ``[n, c, length]``; for contexts computed once for all steps of a run."""
        return self.split(_linear(self.to_k, source)), self.split(_linear(self.to_v, source))

    def forward(self, hidden: Tensor, keys_values: tuple[Tensor, Tensor] | None = None) -> Tensor:
        query = self.split(_linear(self.to_q, hidden))
        keys, values = self.keys_values(hidden) if keys_values is None else keys_values
        mixed = attend(query, keys, values)
        mixed = mixed.transpose(2, 3).reshape(hidden.shape)
        return _linear(self.proj_out, mixed)


def _linear(conv: nn.Conv1d | nn.Conv2d, hidden: Tensor) -> Tensor:
    """A width-1 convolution as a matrix product over channels: same numbers, no layout change on CPU."""
    weight = conv.weight.flatten(1)
    flat = hidden.flatten(2).transpose(1, 2)
    return F.linear(flat, weight, conv.bias).transpose(1, 2).reshape(hidden.shape[0], -1, *hidden.shape[2:])


def _normalised(norm: nn.GroupNorm, flat: Tensor) -> Tensor:
    """``norm`` of ``[n, c, length]``; keeps the layout of tokens, which a norm of three dimensions does not."""
    image = flat.unsqueeze(2)
    return norm(image).squeeze(2) if _lies_as_tokens(image) else norm(flat)


class SelfAttentionBlock(nn.Module):
    """Norm, self-attention, residual: the attention of the AdaGN variant."""

    def __init__(self, channels: int, head_channels: int, group_channels: int | None = None):
        super().__init__()
        self.attention = Attention(channels, None, head_channels)
        self.norm = group_norm(channels, group_channels)

    def forward(self, hidden: Tensor, keys_values: None = None) -> Tensor:
        flat = hidden.flatten(2)
        return hidden + self.attention(_normalised(self.norm, flat)).reshape(hidden.shape)


class ContextAttentionBlock(nn.Module):
    """Self-attention, cross-attention to 32 context tokens, feed-forward; one shared norm serves all three."""

    def __init__(self, channels: int, context_channels: int, head_channels: int, group_channels: int | None = None):
        super().__init__()
        self.x_proj_in = nn.Conv2d(channels, channels, 1)
        self.x_proj_out = nn.Conv2d(channels, channels, 1)
        self.self_attention = Attention(channels, None, head_channels)
        self.c_proj_in = nn.Linear(context_channels, CONTEXT_TOKENS * context_channels)
        self.cross_attention = Attention(channels, context_channels, head_channels)
        self.x_norm = group_norm(channels, group_channels)
        self.c_norm = nn.GroupNorm(NORM_GROUPS, context_channels)
        self.ff = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))
        nn.init.zeros_(self.x_proj_out.weight)
        nn.init.zeros_(self.x_proj_out.bias)

    def context_keys_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values ``[n, heads, 32, head_channels]`` of projected contexts ``[n, context_channels]``."""
        tokens = self.c_proj_in(context).reshape(len(context), -1, CONTEXT_TOKENS)
        return self.cross_attention.keys_values(self.c_norm(tokens))

    def forward(self, hidden: Tensor, keys_values: tuple[Tensor, Tensor]) -> Tensor:
        flat = _linear(self.x_proj_in, hidden).flatten(2)
        flat = flat + self.self_attention(_normalised(self.x_norm, flat))
        flat = spread(flat, len(keys_values[0]))
        flat = flat + self.cross_attention(_normalised(self.x_norm, flat), keys_values)
        flat = flat + self.ff(_normalised(self.x_norm, flat).transpose(1, 2)).transpose(1, 2)
        hidden = spread(hidden, len(flat))
        return hidden + _linear(self.x_proj_out, flat.reshape(hidden.shape))


class Downsample(nn.Module):
    """3×3 convolution with stride 2."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.conv(hidden)


class Upsample(nn.Module):
    """4×4 transposed convolution with stride 2."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.conv(hidden)

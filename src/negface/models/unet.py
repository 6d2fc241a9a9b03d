"""The IDiff-Face denoiser (arXiv 2308.04995, sec. 3; released as ``unet_cond_ca``): a U-Net told whom to draw.

Variants: ``CA`` (cross-attention to 32 context tokens, the released one), ``AdaGN`` (context through the adaptive
norms), ``CA+AdaGN`` (both, ours). What depends only on the context is computed once by ``prepare_context``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

from negface.foundation.errors import InputError, UnknownNameError
from negface.sampling.schedule import NoiseSchedule

from .layers import (
    ContextAttentionBlock,
    Downsample,
    Modulation,
    ResBlock,
    SelfAttentionBlock,
    TimeEmbedding,
    Upsample,
    group_norm,
    spread,
)
from .prepared import PreparedContext, PreparedTime, PreparedTimes

CONDITION_TYPES = ("CA", "AdaGN", "CA+AdaGN")
PREDICTION_TYPES = ("epsilon", "v_prediction")


class _Stage(nn.Module):
    """A residual block and, where the level has it, attention."""

    def __init__(self, res: ResBlock, attention: nn.Module | None):
        super().__init__()
        self.res = res
        self.attn = attention


class _Middle(nn.Module):
    def __init__(self, res1: ResBlock, attention: nn.Module, res2: ResBlock):
        super().__init__()
        self.res1, self.attn, self.res2 = res1, attention, res2


class IDiffUNet(ModelMixin, ConfigMixin):
    """Identity-conditioned U-Net of the IDiff-Face family.

    Args:
        in_channels: latent channels ``c``.
        sample_size: side of the latent in cells.
        initial_channels: width of the first level.
        channel_multipliers: *cumulative* width multipliers, one per level (published: 1, 2, 2, 2).
        is_attention: whether each level has attention.
        head_channels: width of an attention head.
        blocks_per_resolution: residual blocks per level on the way down (one more on the way up).
        context_input: length of a context vector ``d``.
        context_channels: width of the projected context.
        condition_type: ``CA``, ``AdaGN`` or ``CA+AdaGN``.
        context_dropout_probability: contextual partial dropout (CPD): each projected component is dropped on its own.
        learned_null: whether there is a trained empty context.
        group_channels: channels per group of the group norms; ``None`` = 32 groups, as published.
        prediction_type: what the last layer predicts; ``forward`` always returns the noise.
        conditioner: name and hash of the recogniser whose embeddings are the contexts, or ``None`` if not known.
        guidance_input: whether the negative and its weight are inputs, so that one prediction is a guided one
            (``guided_embedding``; a distilled model).
        distilled: what a distilled model was distilled from and for (docs/distillation.md), or ``None``.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        sample_size: int = 32,
        initial_channels: int = 96,
        channel_multipliers: tuple[int, ...] = (1, 2, 2, 2),
        is_attention: tuple[bool, ...] = (False, True, True, True),
        head_channels: int = 32,
        blocks_per_resolution: int = 2,
        context_input: int = 512,
        context_channels: int = 256,
        condition_type: str = "CA",
        context_dropout_probability: float = 0.0,
        learned_null: bool = False,
        group_channels: int | None = None,
        prediction_type: str = "epsilon",
        conditioner: dict[str, Any] | None = None,
        guidance_input: bool = False,
        distilled: dict[str, Any] | None = None,
    ):
        super().__init__()
        _check_shape(initial_channels, channel_multipliers, is_attention, head_channels, context_channels)
        if condition_type not in CONDITION_TYPES:
            raise UnknownNameError("condition type", condition_type, CONDITION_TYPES)
        if prediction_type not in PREDICTION_TYPES:
            raise UnknownNameError("prediction type", prediction_type, PREDICTION_TYPES)
        self.cross, self.adaptive = "CA" in condition_type, "AdaGN" in condition_type
        adaptive = context_channels if self.adaptive else None
        time_channels = 4 * initial_channels

        def res(channels_in: int, channels_out: int) -> ResBlock:
            return ResBlock(channels_in, channels_out, time_channels, adaptive, group_channels)

        def attention(channels: int) -> nn.Module:
            if self.cross:
                return ContextAttentionBlock(channels, context_channels, head_channels, group_channels)
            return SelfAttentionBlock(channels, head_channels, group_channels)

        self.image_proj = nn.Conv2d(in_channels, initial_channels, 3, padding=1)
        self.time_emb = TimeEmbedding(initial_channels)
        self.context_emb = nn.Linear(context_input, context_channels)
        # Unit vectors have components of 1/sqrt(d): the default start would make the context far weaker than the time.
        nn.init.normal_(self.context_emb.weight, std=1.0)
        self.empty_context = nn.Parameter(torch.zeros(context_channels)) if learned_null else None
        self.guidance_emb = _guidance_embedding(context_channels) if guidance_input else None

        widths, width = [], initial_channels
        for multiplier in channel_multipliers:
            width *= multiplier
            widths.append(width)

        self.down, skips, width = nn.ModuleList(), [initial_channels], initial_channels
        for level, level_width in enumerate(widths):
            for _ in range(blocks_per_resolution):
                self.down.append(
                    _Stage(res(width, level_width), attention(level_width) if is_attention[level] else None)
                )
                width = level_width
                skips.append(width)
            if level < len(widths) - 1:
                self.down.append(Downsample(width))
                skips.append(width)

        self.middle = _Middle(res(width, width), attention(width), res(width, width))

        self.up = nn.ModuleList()
        for level in reversed(range(len(widths))):
            for block in range(blocks_per_resolution + 1):
                last = block == blocks_per_resolution
                out = (widths[level - 1] if level else initial_channels) if last else widths[level]
                self.up.append(_Stage(res(width + skips.pop(), out), attention(out) if is_attention[level] else None))
                width = out
            if level:
                self.up.append(Upsample(width))

        self.norm = group_norm(width, group_channels)
        self.final = nn.Conv2d(width, in_channels, 3, padding=1)
        nn.init.zeros_(self.final.weight)
        nn.init.zeros_(self.final.bias)
        alpha_bars = torch.tensor(NoiseSchedule().alpha_bars)
        self.register_buffer("signal", alpha_bars.sqrt().float(), persistent=False)
        self.register_buffer("sigma", (1 - alpha_bars).sqrt().float(), persistent=False)

    @property
    def has_learned_null(self) -> bool:
        """Whether the empty context was trained (``context="learned"`` is allowed)."""
        return self.empty_context is not None

    def attention_blocks(self) -> list[ContextAttentionBlock]:
        """The cross-attention blocks in the order of the forward pass: the one hook point for attention rules."""
        stages = [*self.down, self.middle, *self.up]
        return [stage.attn for stage in stages if isinstance(getattr(stage, "attn", None), ContextAttentionBlock)]

    def residual_blocks(self) -> list[ResBlock]:
        """The residual blocks in the order of the forward pass."""
        down, up = ([stage.res for stage in part if isinstance(stage, _Stage)] for part in (self.down, self.up))
        return [*down, self.middle.res1, self.middle.res2, *up]

    def project_context(self, context: Tensor | str | None, batch: int) -> Tensor:
        """Contexts to ``[n, context_channels]``: a tensor is projected, ``None`` is zeros after the projection,
        ``"learned"`` the trained null."""
        if context is None:
            return self.context_emb.weight.new_zeros(batch, self.config.context_channels)
        if isinstance(context, str):
            if context != "learned":
                raise UnknownNameError("context", context, ("learned",))
            if self.empty_context is None:
                raise InputError(
                    "the model has no learned empty context",
                    where="context='learned'",
                    fix="use a zero context, or a model trained with whole-context dropout",
                )
            return self.empty_context.expand(batch, -1)
        if context.ndim != 2 or context.shape[1] != self.config.context_input:
            raise InputError(
                f"contexts have shape {tuple(context.shape)}, the model takes [n, {self.config.context_input}]",
                where="context",
            )
        return self.context_emb(context.to(self.context_emb.weight.dtype))

    def prepare_context(self, context: Tensor | str | None, batch: int = 1) -> PreparedContext:
        """All that depends only on the context, computed once; ``batch`` rows where it is ``None`` or a name."""
        return self.prepare_embedding(self.project_context(context, batch))

    def prepare_embedding(self, embedding: Tensor) -> PreparedContext:
        """``prepare_context`` of contexts that are projected already, ``[n, context_channels]``."""
        prepared = self._prepare(embedding)
        blocks = self.residual_blocks() if self.adaptive else ()
        modulations = tuple(block.context_modulation(prepared.embedding) for block in blocks)
        return PreparedContext(prepared.embedding, prepared.keys_values, modulations)

    def guided_embedding(self, context: Tensor, negative: Tensor, learned: Tensor, weight: Tensor) -> Tensor:
        """``p + w·g(p, n)``: the projected context whose one prediction is the guided one (``guidance_input``).

        The weight multiplies, so that weight 0 is the plain prediction whatever was learned, and the negative then
        has no part in it (guidance as an input: arXiv 2210.03142, sec. 3).

        Args:
            context, negative: vectors ``[n, d]``.
            learned: bool ``[n]``, rows whose negative is the learned null.
            weight: guidance weights ``w`` ``[n]``.

        Returns:
            ``[n, context_channels]``.
        """
        positive, other = self.project_context(context, len(context)), self.project_context(negative, len(context))
        if learned.any():
            other = torch.where(learned[:, None], self.project_context("learned", len(context)).to(other.dtype), other)
        return positive + weight[:, None] * self.guidance_emb(torch.cat([positive, other], dim=1))

    def _prepare(self, embedding: Tensor) -> PreparedContext:
        pairs = tuple(block.context_keys_values(embedding) for block in self.attention_blocks()) if self.cross else ()
        return PreparedContext(embedding, pairs)

    def prepare_times(self, timesteps: Iterable[int]) -> PreparedTimes:
        """All that depends only on the time, for the timesteps of a run: computed once per schedule.

        ``forward`` takes ``prepare_times(timesteps).at(t)`` in place of ``t``.
        """
        timesteps = tuple(int(t) for t in timesteps)
        time = self.time_emb(torch.tensor(timesteps, device=self.signal.device))
        return PreparedTimes(timesteps, tuple(block.modulation(time, None) for block in self.residual_blocks()))

    def training_context(self, context: Tensor, empty: Tensor | None = None) -> PreparedContext:
        """Contexts as trained: CPD on the projected vector, the null where ``empty`` (bool ``[n]``)."""
        embedding = self.project_context(context, len(context))
        if self.config.context_dropout_probability > 0:
            embedding = F.dropout(embedding, self.config.context_dropout_probability, training=self.training)
        if empty is not None:
            null = self.project_context("learned" if self.has_learned_null else None, len(context))
            embedding = torch.where(empty[:, None], null.to(embedding.dtype), embedding)
        return self._prepare(embedding)

    def raw(self, latents: Tensor, timesteps: Tensor | PreparedTime, context: PreparedContext) -> Tensor:
        """The last layer's output ``[n, c, h, w]``: noise or velocity, as ``prediction_type`` says.

        The context may have a multiple of the latents' rows (branch after branch): what comes before its first use is
        then computed once for all branches, and the output has the context's rows.
        """
        pairs = iter(context.keys_values)
        modulations = self._modulations(timesteps, context)

        def stage(hidden: Tensor, block: _Stage) -> Tensor:
            hidden = block.res(hidden, next(modulations))
            return hidden if block.attn is None else block.attn(hidden, next(pairs) if self.cross else None)

        hidden = self.image_proj(latents.to(self.image_proj.weight.dtype))
        skips = [hidden]
        for block in self.down:
            hidden = stage(hidden, block) if isinstance(block, _Stage) else block(hidden)
            skips.append(hidden)
        hidden = self.middle.res1(hidden, next(modulations))
        hidden = self.middle.attn(hidden, next(pairs) if self.cross else None)
        hidden = self.middle.res2(hidden, next(modulations))
        for block in self.up:
            if isinstance(block, _Stage):
                hidden = stage(torch.cat([hidden, spread(skips.pop(), len(hidden))], dim=1), block)
            else:
                hidden = block(hidden)
        return self.final(F.silu(self.norm(hidden)))

    def _modulations(self, timesteps: Tensor | PreparedTime, context: PreparedContext) -> Iterator[Modulation]:
        """Scale and shift for each residual block: computed, or added up from prepared parts."""
        if isinstance(timesteps, PreparedTime):
            if context.modulations or not self.adaptive:
                yield from context.modulated(timesteps.modulations)
                return
            timesteps = timesteps.timestep
        time = self.time_emb(timesteps)
        for block in self.residual_blocks():
            yield block.modulation(time, context.embedding)

    def to_noise(self, raw: Tensor, latents: Tensor, timesteps: Tensor) -> Tensor:
        """Predicted noise from the last layer's output; for velocities ``ε = σ·x + α·v`` (arXiv 2202.00512, app. D)."""
        if self.config.prediction_type == "epsilon":
            return raw
        signal, sigma = (spread(values[timesteps], len(raw))[:, None, None, None]
                         for values in (self.signal, self.sigma))
        return sigma * spread(latents.float(), len(raw)) + signal * raw.float()

    def forward(
        self, latents: Tensor, timesteps: Tensor | int | PreparedTime,
        context: Tensor | PreparedContext | str | None = None, branches: int = 1,
    ) -> Tensor:
        """Predicted noise.

        Args:
            latents: ``[n, c, h, w]``, scaled latents with noise.
            timesteps: int ``[n]`` or one int, 0 … 999; or one prepared (``prepare_times``).
            context: contexts ``[branches * n, d]`` (zeros = the published zero input), ``None`` (zeros after the
                projection), ``"learned"``, or the value of ``prepare_context``.
            branches: how many contexts each latent has, branch after branch; what comes before their first use is
                computed once.

        Returns:
            ``[branches * n, c, h, w]``.

        Raises:
            InputError: a wrong shape, or ``"learned"`` without a trained null.
        """
        self._check_latents(latents)
        rows = branches * len(latents)
        if not isinstance(timesteps, PreparedTime):
            timesteps = torch.as_tensor(timesteps, device=latents.device).long()
            if timesteps.shape not in ((), (1,), (len(latents),)):
                raise InputError(
                    f"timesteps have shape {tuple(timesteps.shape)}, expected one or [{len(latents)}]",
                    where="timesteps",
                )
            timesteps = timesteps.expand(len(latents))
        if not isinstance(context, PreparedContext):
            context = self.prepare_context(context, rows)
        if len(context) != rows:
            raise InputError(f"{len(context)} contexts for {rows} latents", where="context")
        times = timesteps.timestep if isinstance(timesteps, PreparedTime) else timesteps
        return self.to_noise(self.raw(latents, timesteps, context), latents, times)

    def _check_latents(self, latents: Tensor) -> None:
        if latents.ndim != 4 or latents.shape[1] != self.config.in_channels:
            raise InputError(
                f"latents have shape {tuple(latents.shape)}, expected [n, {self.config.in_channels}, h, w]",
                where="latents",
            )
        fold = 2 ** (len(self.config.channel_multipliers) - 1)
        if latents.shape[2] % fold or latents.shape[3] % fold:
            raise InputError(f"sides {tuple(latents.shape[2:])} are not multiples of {fold}", where="latents")


def _guidance_embedding(channels: int) -> nn.Sequential:
    """Projected context and negative ``[n, 2c]`` to a change of the context ``[n, c]``; none at first."""
    layers = nn.Sequential(nn.Linear(2 * channels, 2 * channels), nn.SiLU(), nn.Linear(2 * channels, channels))
    nn.init.zeros_(layers[2].weight)
    nn.init.zeros_(layers[2].bias)
    return layers


def _check_shape(initial: int, multipliers: tuple, attention: tuple, head: int, context: int) -> None:
    if len(multipliers) != len(attention):
        raise InputError(
            f"{len(multipliers)} channel multipliers for {len(attention)} attention flags", where="IDiffUNet"
        )
    if initial % 32 or context % 32:
        raise InputError(
            "initial_channels and context_channels must be multiples of 32 (group norm)", where="IDiffUNet"
        )
    if initial % head:
        raise InputError(f"head_channels {head} does not divide initial_channels {initial}", where="IDiffUNet")

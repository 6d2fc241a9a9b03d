"""What a denoiser computes ahead of its steps: from contexts and from timesteps, once for all steps of a run.

Values, not modules: they hold tensors of one denoiser and are meaningless to another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .layers import Modulation


@dataclass(frozen=True)
class PreparedContext:
    """All that a denoiser computes from contexts alone.

    ``index`` picks rows (per image of a batch), ``cat`` stacks branches; both are cheap views or copies.

    Attributes:
        embedding: projected contexts ``[n, context_channels]``.
        keys_values: keys and values for each cross-attention block.
        modulations: the contexts' part of scale and shift for each residual block (AdaGN; none in training).
    """

    embedding: Tensor
    keys_values: tuple[tuple[Tensor, Tensor], ...]
    modulations: tuple[Modulation, ...] = ()

    def __len__(self) -> int:
        return len(self.embedding)

    def index(self, rows: Tensor | slice) -> PreparedContext:
        """The rows named, in that order."""
        return PreparedContext(self.embedding[rows], *(tuple((a[rows], b[rows]) for a, b in pairs)
                                                       for pairs in (self.keys_values, self.modulations)))

    @staticmethod
    def cat(parts: list[PreparedContext]) -> PreparedContext:
        """Stack prepared contexts along the batch."""
        return PreparedContext(torch.cat([part.embedding for part in parts]),
                               _stacked(part.keys_values for part in parts),
                               _stacked(part.modulations for part in parts))

    def modulated(self, times: tuple[Modulation, ...]) -> Iterator[Modulation]:
        """Scale and shift for each residual block at a prepared time."""
        if not self.modulations:
            yield from times
        for (scale, shift), (more_scale, more_shift) in zip(times, self.modulations):
            yield scale + more_scale, shift + more_shift


@dataclass(frozen=True)
class PreparedTime:
    """One timestep: int64 ``[1]``, and the time's part of scale and shift ``[1, channels]`` for each residual block."""

    timestep: Tensor
    modulations: tuple[Modulation, ...]


@dataclass(frozen=True)
class PreparedTimes:
    """The timesteps of a run, with the time's part of scale and shift ``[len(timesteps), channels]`` per block."""

    timesteps: tuple[int, ...]
    modulations: tuple[Modulation, ...]

    def at(self, t: int) -> PreparedTime:
        """One of the timesteps; ``ValueError`` for another."""
        row = self.timesteps.index(t)
        parts = tuple((scale[row:row + 1], shift[row:row + 1]) for scale, shift in self.modulations)
        return PreparedTime(torch.tensor([t], device=self.modulations[0][0].device), parts)


def _stacked(parts: Iterable[tuple[tuple[Tensor, Tensor], ...]]) -> tuple[tuple[Tensor, Tensor], ...]:
    return tuple((torch.cat([a for a, _ in block]), torch.cat([b for _, b in block]))
                 for block in zip(*parts, strict=True))

"""Cosines from int8 products: three to six times faster, and off by a bounded amount that says what to score again.

Row x is stored as a_x q with q = round(x / a_x), a_x = max|x| / 127. With residuals e = x - a_x q, a score is off by
x.e_y + e_x.y - e_x.e_y: at most |e_x| + |e_y| + |e_x||e_y| (Cauchy-Schwarz), and in practice by a small share of that,
since residuals point anywhere. Pairs within ``slack`` of a span are scored again in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .inputs import Gallery
from .scoring import Tiles, sample_impostors

SLACK_DEVIATIONS = 6.0
_BLOCK = 4096
_PAIRS = 2048


@dataclass(frozen=True)
class Int8Gallery:
    """``codes`` int8 ``[n, d]`` and ``scales`` float32 ``[n]``; ``bound``: no score is off by more; ``deviation``: the
    root mean square by which sampled scores are off; ``slack``: six of these, or the largest seen, if that is more."""

    codes: torch.Tensor
    scales: torch.Tensor
    bound: float
    deviation: float
    slack: float

    def scores(self, tiles: Tiles, strip: int, column: int) -> torch.Tensor:
        """One tile of approximate cosines, float32, in the shape of ``tiles``."""
        row = strip * tiles.rows
        product = torch._int_mm(tiles.padded(self.codes, row, tiles.rows),
                                tiles.padded(self.codes, column, tiles.width).T)
        product = product[: tiles.n - row, : tiles.n - column].float()
        of_rows, of_columns = self.scales[row : row + tiles.rows], self.scales[column : column + tiles.width]
        return product.mul_(of_columns[None]).mul_(of_rows[:, None])

    @staticmethod
    def rescored(matrix: torch.Tensor, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Float32 cosines of pairs of rows."""
        out = np.empty(len(first), np.float32)
        for at in range(0, len(first), _PAIRS):
            one, other = (torch.from_numpy(rows[at : at + _PAIRS]).to(matrix.device) for rows in (first, second))
            products = matrix.index_select(0, one).mul_(matrix.index_select(0, other))
            out[at : at + _PAIRS] = products.sum(dim=1).cpu().numpy()
        return out


def to_int8(people: Gallery, *, seed: int, device: str = "cpu", sample: int = 1 << 16) -> Int8Gallery:
    """Quantise a gallery and measure on ``sample`` random impostor pairs how far its scores are off."""
    n, d = people.embeddings.shape
    codes, scales, residuals = torch.empty(n, d, dtype=torch.int8), torch.empty(n), np.empty(n)
    for at in range(0, n, _BLOCK):
        rows = torch.from_numpy(people.embeddings[at : at + _BLOCK])
        scale = rows.abs().amax(dim=1) / 127
        rounded = (rows / scale[:, None]).round_()
        codes[at : at + _BLOCK], scales[at : at + _BLOCK] = rounded.to(torch.int8), scale
        residuals[at : at + _BLOCK] = (rows - rounded.mul_(scale[:, None])).norm(dim=1).numpy()
    longest = float(np.sort(residuals)[-2:].sum()) if n > 1 else 2 * float(residuals.max())
    exact, first, second = sample_impostors(people, sample, seed)
    one, other = torch.from_numpy(first), torch.from_numpy(second)
    off = np.empty(len(exact))
    for at in range(0, len(exact), _PAIRS):
        pair = slice(at, at + _PAIRS)
        product = (codes[one[pair]].float() * codes[other[pair]].float()).sum(dim=1)
        off[pair] = (product * scales[one[pair]] * scales[other[pair]]).numpy() - exact[pair]
    deviation = float(np.sqrt((off**2).mean())) if len(off) else longest
    slack = min(max(SLACK_DEVIATIONS * deviation, 1.2 * float(np.abs(off).max(initial=0.0))), longest * 1.02)
    return Int8Gallery(codes.to(device), scales.to(device), longest * (1 + longest / 4) + 1e-6, deviation,
                       max(slack, 1e-5))

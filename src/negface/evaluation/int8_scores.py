"""Cosines from int8 products: three to six times faster, and off by a bounded amount that says what to score again.

Row x is stored as a_x q with q = round(x / a_x), a_x = max|x| / 127. With residuals e = x - a_x q, a score is off by
x.e_y + e_x.y - e_x.e_y: at most |e_x| + |e_y| + |e_x||e_y| (Cauchy-Schwarz), and in practice by a small share of that,
since residuals point anywhere. Pairs within ``slack`` of a span are scored again in float32.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from .inputs import Gallery
from .lookout import sample_tiles
from .scoring import Tiles

SLACK_DEVIATIONS = 6.0
_BLOCK = 4096
_PAIRS = 2048
_MULTIPLE = 8


@dataclass(frozen=True)
class Int8Gallery:
    """``codes`` int8 ``[n, d]``, with zeros to the next multiple of 8, and ``scales`` float32 ``[n]``; ``bound``: no
    score is off by more; ``deviation``: the root mean square by which sampled scores are off; ``slack``: six of these,
    or the largest seen, if that is more."""

    codes: torch.Tensor
    scales: torch.Tensor
    bound: float
    deviation: float
    slack: float

    def block(self, tiles: Tiles, start: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes int8 ``[size, d]`` and scales ``[size, 1]`` of rows from ``start``, zeros beyond the end."""
        return tiles.padded(self.codes, start, size), tiles.padded(self.scales[:, None], start, size)


def int8_product(rows: tuple[torch.Tensor, torch.Tensor], columns: tuple[torch.Tensor, torch.Tensor],
                 whole: torch.Tensor, out: torch.Tensor) -> None:
    """Approximate cosines, in [-1, 1], of two blocks (codes, scales) into ``out`` float32; ``whole`` int32 is used on
    the way."""
    torch._int_mm(rows[0], columns[0].T, out=whole)
    out.copy_(whole).mul_(columns[1].T).mul_(rows[1]).clamp_(-1, 1)


def rescored(rows: torch.Tensor, columns: torch.Tensor, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Some entries of ``rows @ columns.T``, float32: in rows ``first``, ascending, and columns ``second``, int64."""
    starts = torch.from_numpy(np.searchsorted(first, np.arange(len(rows) + 1)))
    _hush()
    wanted = torch.sparse_csr_tensor(starts, torch.from_numpy(second), torch.zeros(len(first)),
                                     (len(rows), len(columns)), device=rows.device, check_invariants=False)
    return torch.sparse.sampled_addmm(wanted, rows, columns.T, beta=0.0).values().cpu().numpy()


@cache
def _hush() -> None:
    """Have torch say, once a process and to nobody, that its sparse tensors are beta; what is used here is tested."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR", UserWarning)
        torch.sparse_csr_tensor(torch.tensor([0, 1]), torch.tensor([0]), torch.zeros(1), (1, 1), check_invariants=False)


def to_int8(people: Gallery, *, seed: int, device: str = "cpu", sample: int = 1 << 16) -> Int8Gallery:
    """Quantise a gallery and measure on ``sample`` random impostor pairs how far its scores are off."""
    n, d = people.embeddings.shape
    # Torch's int8 product is wrong for rows of one number, and takes no others than multiples of 8 on a GPU.
    codes = torch.zeros(n, -(-d // _MULTIPLE) * _MULTIPLE, dtype=torch.int8)
    scales, residuals = torch.empty(n), np.empty(n)
    for at in range(0, n, _BLOCK):
        rows = torch.from_numpy(people.embeddings[at : at + _BLOCK])
        scale = rows.abs().amax(dim=1) / 127
        rounded = (rows / scale[:, None]).round_()
        codes[at : at + _BLOCK, :d], scales[at : at + _BLOCK] = rounded.to(torch.int8), scale
        residuals[at : at + _BLOCK] = (rows - rounded.mul_(scale[:, None])).norm(dim=1).numpy()
    longest = float(np.sort(residuals)[-2:].sum()) if n > 1 else 2 * float(residuals.max())
    seen = sample_tiles(people, sample, seed)
    exact, one, other = seen.scores, torch.from_numpy(seen.first), torch.from_numpy(seen.second)
    off = np.empty(len(exact))
    for at in range(0, len(exact), _PAIRS):
        pair = slice(at, at + _PAIRS)
        product = (codes[one[pair]].float() * codes[other[pair]].float()).sum(dim=1)
        off[pair] = (product * scales[one[pair]] * scales[other[pair]]).numpy() - exact[pair]
    deviation = float(np.sqrt((off**2).mean())) if len(off) else longest
    slack = min(max(SLACK_DEVIATIONS * deviation, 1.2 * float(np.abs(off).max(initial=0.0))), longest * 1.02)
    return Int8Gallery(codes.to(device), scales.to(device), longest * (1 + longest / 4) + 1e-6, deviation,
                       max(slack, 1e-5))

"""What is counted of one tile of cosines: on the lattice, per image, and where the few that matter are.

A worker has one desk for all its tiles: 300,000 cosines are counted in a millisecond, in which fresh memory for every
step would cost more than the step. Nearly all pairs are only counted; whatever costs more is done to the few found by
a comparison.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .int8_scores import Int8Gallery, int8_product, rescored
from .scoring import LATTICE, NOT_COUNTED, Tiles

# Index 0 takes what is not counted; a cosine may leave [-1, 1] by rounding, by one cell.
OFFSET = LATTICE + 2
CELLS = 2 * LATTICE + 4
# Between every cosine and the value of index 0, which is NOT_COUNTED.
_LOWEST = -1 - 1 / LATTICE
# A tail of a larger share of a tile takes longer to pick up than all that is looked for in it.
_FEW = 1 / 32


def lattice_bins(lattice: np.ndarray) -> np.ndarray:
    """Counts between the lattice's edges -1, -1 + 2^-15 … 1, and beyond either end; int64 ``[2 * 2**15 + 2]``."""
    return np.concatenate([lattice[1:-2], [lattice[-2:].sum()]])


class Desk:
    """Room for one tile at a time: ``score`` fills it, everything else counts what is there."""

    def __init__(self, tiles: Tiles, int8: Int8Gallery | None = None):
        shape, device = (tiles.rows, tiles.width), tiles.matrix.device
        self._tiles, self._int8 = tiles, int8
        self._scores = torch.empty(shape, device=device)
        self._whole = torch.empty(shape, dtype=torch.int32, device=device) if int8 else None
        self._masks = [np.empty(shape, bool) for _ in range(2)] if device.type == "cpu" else None
        # The least that an int8 product takes on a GPU.
        self._ones = [torch.ones(size, 32, dtype=torch.int8, device=device) for size in shape]
        self._all_counted = False
        self._tail: tuple[float, np.ndarray, np.ndarray] | None = None
        self._strip = self._column = 0

    @property
    def number(self) -> int:
        """Spreads tiles evenly over the residues of a small number."""
        return self._strip + self._column // self._tiles.width

    def score(self, strip: int, column: int) -> Desk:
        """Fill it with a tile; what is no pair of different people, or there already, is set below every cosine."""
        self._strip, self._column, self._tail, tiles = strip, column, None, self._tiles
        if self._int8 is None:
            torch.mm(tiles.row_block(strip), tiles.column_block(column).T, out=self._scores)
        else:
            int8_product(self._int8.block(tiles, strip * tiles.rows, tiles.rows),
                         self._int8.block(tiles, column, tiles.width), self._whole, self._scores)
        rows, columns = tiles.row_codes(strip), tiles.column_codes(column)
        self._scores[len(rows) :] = NOT_COUNTED
        self._scores[:, len(columns) :] = NOT_COUNTED
        self._all_counted = bool(columns[0] > rows[-1])
        if not self._all_counted:
            # Codes ascend, so "code of the row < code of the column" is "different people, each pair once".
            others = torch.from_numpy(rows)[:, None] >= torch.from_numpy(columns)[None]
            self._scores[: len(rows), : len(columns)].masked_fill_(others.to(self._scores.device), NOT_COUNTED)
        return self

    def count_lattice(self, lattice: np.ndarray) -> None:
        """Add the tile's pairs by cell of 2^-15, int64 ``[CELLS]``. Comes last: it leaves nothing else to count."""
        # A product with a power of two is exact, and so are whole numbers below 2^24: binning is exact too. In place,
        # because two tiles do not fit into a processor's own cache.
        cells = self._scores.view(torch.int32).copy_(self._scores.mul_(LATTICE).floor_().add_(OFFSET))
        lattice += torch.bincount(cells.view(-1), minlength=CELLS).cpu().numpy()

    def pick_up(self, low: float) -> None:
        """Search the tile once for all that will be looked for from ``low`` up, if it is little."""
        found = self._reaching(low)
        if int(np.count_nonzero(self._masks[0]) if self._masks else found.sum()) <= _FEW * found.numel():
            flat = self._indices(found)
            self._tail = max(low, _LOWEST), flat, self.values(flat)

    def between(self, low: float, high: float | None) -> np.ndarray:
        """Flat indices of scores in [low, high), or from ``low`` up if ``high`` is None; int64, ascending."""
        if self._tail is not None and low >= self._tail[0]:
            _, flat, values = self._tail
            chosen = values >= np.float32(low)
            return flat[chosen if high is None else chosen & (values < np.float32(high))]
        found = self._reaching(low)
        if high is not None and self._masks is not None:
            below = np.less(self._scores.numpy(), np.float32(high), out=self._masks[1])
            np.logical_and(self._masks[0], below, out=self._masks[0])
        elif high is not None:
            found &= self._scores < high
        return self._indices(found)

    def _indices(self, found: torch.Tensor) -> np.ndarray:
        return np.flatnonzero(self._masks[0]) if self._masks else found.view(-1).nonzero().view(-1).cpu().numpy()

    def _reaching(self, low: float) -> torch.Tensor:
        """Which scores are ``low`` or more, of those that count."""
        low = max(low, _LOWEST)
        if self._masks is None:
            return self._scores >= low
        # A tenth of the time of torch's comparison.
        np.greater_equal(self._scores.numpy(), np.float32(low), out=self._masks[0])
        return torch.from_numpy(self._masks[0])

    def values(self, flat: np.ndarray) -> np.ndarray:
        """Scores at flat indices, float32."""
        if self._masks is not None:
            return self._scores.numpy().ravel()[flat]
        return self._scores.view(-1)[torch.from_numpy(flat).to(self._scores.device)].cpu().numpy()

    def rescored(self, flat: np.ndarray) -> np.ndarray:
        """Scores at flat indices, ascending, made again in float32."""
        return rescored(self._tiles.row_block(self._strip), self._tiles.column_block(self._column),
                        *np.divmod(flat, self._tiles.width))

    def rows_of(self, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The two rows of the gallery behind flat indices."""
        first, second = np.divmod(flat, self._tiles.width)
        return first + self._strip * self._tiles.rows, second + self._column

    def count_marked(self, marks: Sequence[float], marked: np.ndarray) -> None:
        """Add to int64 ``[k + 1, n]`` each image's pairs in this tile, and those at or above each mark."""
        row, column = self._strip * self._tiles.rows, self._column
        rows = slice(row, row + len(self._tiles.row_codes(self._strip)))
        columns = slice(column, column + len(self._tiles.column_codes(column)))
        if self._all_counted:
            marked[0, rows] += columns.stop - columns.start
            marked[0, columns] += rows.stop - rows.start
        for kind, mark in enumerate(marks, start=1) if self._all_counted else enumerate([_LOWEST, *marks]):
            reaching, (of_rows, of_columns) = self._reaching(mark).view(torch.int8), self._ones
            by_row, by_column = torch._int_mm(reaching, of_columns)[:, 0], torch._int_mm(of_rows.T, reaching)[0]
            for part, counts in ((rows, by_row), (columns, by_column)):
                marked[kind, part] += counts[: part.stop - part.start].cpu().numpy()

"""The nearest row of another gallery to every image, found on the way of a pass: leakage against a training set.

A tile's rows are narrowed down by its highest cosines; what may still be the highest, with int8 all within its slack,
is scored in float32. Ties go to the first row.
"""

from __future__ import annotations

import numpy as np
import torch

from .int8_scores import Int8Gallery, int8_product, rescored
from .scoring import Tiles


class Nearest:
    """Looks for the nearest of ``others`` to rows of ``tiles``; both in tiles of one shape, both int8 or neither."""

    def __init__(self, tiles: Tiles, others: Tiles, int8: tuple[Int8Gallery, Int8Gallery] | None = None):
        shape, device = (tiles.rows, tiles.width), tiles.matrix.device
        self._tiles, self._others, self._int8 = tiles, others, int8
        self._scores = torch.empty(shape, device=device)
        self._whole = torch.empty(shape, dtype=torch.int32, device=device) if int8 else None
        # Of a cross pair each side contributes its own residual, so the larger slack covers both.
        self._slack = max(part.slack for part in int8) if int8 else 0.0

    def look(self, strips: range, cosine: np.ndarray, row: np.ndarray) -> None:
        """Bring up ``cosine`` float32 ``[n]`` and ``row`` int64 ``[n]`` for the images of some strips."""
        for column in range(0, self._others.n, self._others.width):
            for strip in strips:
                mine = slice(strip * self._tiles.rows, (strip + 1) * self._tiles.rows)
                self._look_at(strip, column, cosine[mine], row[mine])

    def _look_at(self, strip: int, column: int, cosine: np.ndarray, row: np.ndarray) -> None:
        rows, columns = self._tiles.row_block(strip), self._others.column_block(column)
        if self._int8 is None:
            torch.mm(rows, columns.T, out=self._scores)
        else:
            one, other = self._int8
            int8_product(one.block(self._tiles, strip * self._tiles.rows, self._tiles.rows),
                         other.block(self._others, column, self._others.width), self._whole, self._scores)
        scores = self._scores[: len(cosine), : self._others.n - column]
        highest = scores.amax(dim=1).cpu().numpy()
        limit = np.maximum(cosine, highest - np.float32(self._slack)) - np.float32(self._slack)
        first, second = (scores >= torch.from_numpy(limit)[:, None].to(scores.device)).nonzero(as_tuple=True)
        if self._int8 is None:
            exact = scores[first, second].cpu().numpy()
            first, second = first.cpu().numpy(), second.cpu().numpy()
        else:
            first, second = first.cpu().numpy(), second.cpu().numpy()
            exact = rescored(rows, columns, first, second)
        best_first = np.lexsort((second, -exact, first))
        at = best_first[np.unique(first[best_first], return_index=True)[1]]
        at = at[exact[at] > cosine[first[at]]]
        cosine[first[at]], row[first[at]] = exact[at], second[at] + column

"""Every pair of a gallery too large to keep scores or tables of people: counted in one pass, in constant memory.

All scores are counted on a lattice of 2^-15; where operating points are expected, on one of 2^-27, the spacing of
float32 itself between 1/16 and 1/8. Everything that is kept is an integer, so the answer is the same for any cut of
the work, any number of workers and any executor. Scores are float32 products, or int8 ones that choose what to
score again in float32 (``int8_scores``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from negface.foundation.progress import Progress

from .inputs import Gallery
from .int8_scores import Int8Gallery
from .scoring import LATTICE, Tiles, cut_closest, note_closest, one_thread_each

FINE = 1 << 27
ERROR_UNITS = 1 << 22
# Index 0 takes what is not counted; a cosine may leave [-1, 1] by rounding, by one cell.
_OFFSET = LATTICE + 2
_CELLS = 2 * LATTICE + 4

# (work, jobs) -> what work returns for each job, in any order: threads, processes, a Ray cluster.
MapBlocks = Callable[[Callable[[range], "Tails"], Sequence[range]], Iterable["Tails"]]


@dataclass(frozen=True)
class TailPlan:
    """What a pass counts.

    ``spans``: lattice cells ``(first, end)`` inside which scores are counted on the fine lattice, ascending, apart;
    ``every``: of the pairs that int8 places in a span, each how-manieth is scored in float32 (1: all);
    ``marks`` float32 ``[k]``: pairs at or above these are counted per image, in one of ``mark_stride`` tiles;
    ``floor``: a score that ``n_closest`` pairs of people exceed.
    """

    spans: tuple[tuple[int, int], ...]
    every: tuple[int, ...]
    marks: tuple[float, ...] = ()
    mark_stride: int = 1
    floor: float = -2.0
    n_closest: int = 20


@dataclass
class Tails:
    """Counts of impostor pairs.

    ``lattice`` int64 ``[2 * 2**15 + 4]``: cell ``c`` of 2^-15 at index ``c + 2**15 + 2``, index 0 what is no impostor
    pair; ``fine``: per span int64 ``[1 + cells of 2^-27 + 1]``, the ends for pairs that int8 placed in it wrongly;
    ``placed`` int64 ``[spans]``: pairs placed in each; ``marked`` int64 ``[k + 1, n]``: per image its impostor pairs in
    the marked tiles and those at or above each mark; ``closest``: by pair of people, (score, row, row); ``errors``
    int64 ``[3]``: number, sum of squares and largest of the differences between int8 and float32 scores, in 2^-22.
    """

    lattice: np.ndarray
    fine: list[np.ndarray]
    placed: np.ndarray
    marked: np.ndarray
    errors: np.ndarray = field(default_factory=lambda: np.zeros(3, np.int64))
    closest: dict[tuple[int, int], tuple[float, int, int]] = field(default_factory=dict)
    floor: float = -2.0

    @staticmethod
    def empty(plan: TailPlan, n: int) -> Tails:
        """Nothing counted yet."""
        return Tails(np.zeros(_CELLS, np.int64), [np.zeros((end - first) * (FINE // LATTICE) + 2, np.int64)
                                                  for first, end in plan.spans],
                     np.zeros(len(plan.spans), np.int64), np.zeros((len(plan.marks) + 1, n), np.int64),
                     floor=plan.floor)

    def add(self, other: Tails, wanted: int) -> None:
        """Count another part of the work too."""
        self.lattice += other.lattice
        self.placed += other.placed
        self.marked += other.marked
        for mine, part in zip(self.fine, other.fine, strict=True):
            mine += part
        self.errors[:2] += other.errors[:2]
        self.errors[2] = max(self.errors[2], other.errors[2])
        for key, found in other.closest.items():
            if key not in self.closest or (-found[0], found[1:]) < (-self.closest[key][0], self.closest[key][1:]):
                self.closest[key] = found
        cut_closest(self, wanted)

    @property
    def bins(self) -> np.ndarray:
        """Counts between the lattice's edges -1, -1 + 2^-15 … 1, and beyond either end; int64 ``[2 * 2**15 + 2]``."""
        return np.concatenate([self.lattice[1:2], self.lattice[2:-2], [self.lattice[-2:].sum()]])


@dataclass(frozen=True)
class TailWork:
    """One pass over a gallery; called with a range of strips it returns their ``Tails``. It can be pickled."""

    people: Gallery
    plan: TailPlan
    int8: Int8Gallery | None = None
    device: str = "cpu"
    shape: tuple[int, int] | None = None
    block: int = 4096

    @cached_property
    def tiles(self) -> Tiles:
        """On its device once, however many jobs there are."""
        return Tiles(self.people, self.device, self.shape)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "tiles"}

    def jobs(self) -> list[range]:
        """The strips, cut into units of work."""
        n_strips, size = self.tiles.n_strips, max(1, -(-self.block // self.tiles.rows))
        return [range(at, min(at + size, n_strips)) for at in range(0, n_strips, size)]

    def __call__(self, strips: range) -> Tails:
        tiles, out = self.tiles, Tails.empty(self.plan, len(self.people.codes))
        for strip in strips:
            inside: list[list[np.ndarray]] = [[] for _ in self.plan.spans]
            for column in tiles.columns(strip):
                if tiles.column_codes(column)[-1] > tiles.row_codes(strip)[0]:
                    self._count_tile(tiles, strip, column, out, inside)
            for fine, scores, (first, _) in zip(out.fine, inside, self.plan.spans, strict=True):
                if scores:
                    _count_fine(fine, np.concatenate(scores), first / LATTICE)
        return out

    def _count_tile(self, tiles: Tiles, strip: int, column: int, out: Tails, inside: list[list[np.ndarray]]) -> None:
        rows, columns = tiles.row_codes(strip), tiles.column_codes(column)
        scores = self.int8.scores(tiles, strip, column) if self.int8 else tiles.scores(strip, column)
        counted = None
        if columns[0] <= rows[-1]:
            # Codes ascend, so "code of the row < code of the column" is "different people, each pair once".
            counted = torch.from_numpy(rows)[:, None] < torch.from_numpy(columns)[None]
            counted = counted.to(scores.device)
            scores = scores.masked_fill(~counted, -2.0)
        scores = scores.contiguous()
        _count_lattice(scores, counted, out)
        start, slack = strip * tiles.rows, self.int8.slack if self.int8 else 0.0
        tail = _between(scores, self.plan.spans[0][0] / LATTICE - slack, 4.0)
        values = _values(scores, tail)
        for span, (first, end) in enumerate(self.plan.spans):
            found = tail[(values >= np.float32(first / LATTICE - slack)) & (values < np.float32(end / LATTICE + slack))]
            inside[span].append(self._exact(tiles, scores, found[:: self.plan.every[span]], start, column, out))
            out.placed[span] += len(found)
        if self.plan.marks and (strip + column // tiles.width) % self.plan.mark_stride == 0:
            _count_marked(scores, counted, self.plan.marks, start, column, out)
        self._note_closest(tiles, scores, strip, column, out)

    def _exact(self, tiles: Tiles, scores: torch.Tensor, flat: np.ndarray, start: int, column: int,
               out: Tails) -> np.ndarray:
        """Float32 scores of some pairs of a tile, by flat index."""
        if not len(flat) or self.int8 is None:
            return _values(scores, flat)
        first, second = flat // scores.shape[1] + start, flat % scores.shape[1] + column
        exact = self.int8.rescored(tiles.matrix, first, second)
        off = np.rint(np.abs(exact - _values(scores, flat)) * ERROR_UNITS).astype(np.int64)
        out.errors += (len(off), int((off**2).sum()), 0)
        out.errors[2] = max(out.errors[2], int(off.max()))
        return exact

    def _note_closest(self, tiles: Tiles, scores: torch.Tensor, strip: int, column: int, out: Tails) -> None:
        slack = self.int8.slack if self.int8 else 0.0
        if not self.plan.n_closest or float(scores.amax()) <= out.floor - slack:
            return
        flat = _between(scores, out.floor - slack, 4.0)
        at_row, at_column = flat // scores.shape[1], flat % scores.shape[1]
        values = self._exact(tiles, scores, flat, strip * tiles.rows, column, out)
        above = values > out.floor
        note_closest(values[above], at_row[above], at_column[above], strip * tiles.rows, column,
                     tiles.row_codes(strip), tiles.column_codes(column), self.plan.n_closest, out)


def _count_lattice(scores: torch.Tensor, counted: torch.Tensor | None, out: Tails) -> None:
    # A product with a power of two is exact, so binning is too.
    cells = (scores * LATTICE).floor_().to(torch.int32).add_(_OFFSET)
    cells = cells.clamp_(1, _CELLS - 1) if counted is None else cells.clamp_(1, _CELLS - 1).mul_(counted)
    out.lattice += torch.bincount(cells.view(-1), minlength=_CELLS).cpu().numpy()


def _between(scores: torch.Tensor, low: float, high: float) -> np.ndarray:
    """Flat indices of scores in [low, high)."""
    if scores.device.type == "cpu":
        # Four times faster than torch's, which cannot use more than a thread here.
        values = scores.numpy().ravel()
        low, high = np.float32(low), np.float32(high)
        return np.flatnonzero((values >= low) & (values < high))
    return ((scores >= low) & (scores < high)).view(-1).nonzero().view(-1).cpu().numpy()


def _values(scores: torch.Tensor, flat: np.ndarray) -> np.ndarray:
    if scores.device.type == "cpu":
        return scores.numpy().ravel()[flat]
    return scores.view(-1)[torch.from_numpy(flat).to(scores.device)].cpu().numpy()


def _count_fine(fine: np.ndarray, scores: np.ndarray, low: float) -> None:
    cells = np.floor((scores.astype(np.float64) - low) * FINE).astype(np.int64) + 1
    fine += np.bincount(np.clip(cells, 0, len(fine) - 1), minlength=len(fine))


def _count_marked(scores: torch.Tensor, counted: torch.Tensor | None, marks: Sequence[float], row: int, column: int,
                  out: Tails) -> None:
    of_rows, of_columns = (torch.ones(size, device=scores.device) for size in reversed(scores.shape))
    rows, columns = slice(row, row + len(scores)), slice(column, column + scores.shape[1])
    if counted is None:
        out.marked[0, rows] += scores.shape[1]
        out.marked[0, columns] += len(scores)
    tables = [] if counted is None else [(0, counted)]
    for kind, table in [*tables, *((at, scores >= mark) for at, mark in enumerate(marks, start=1))]:
        # Counts below 2^24, so float32 adds them exactly.
        ones = table.float()
        out.marked[kind, rows] += (ones @ of_rows).cpu().numpy().astype(np.int64)
        out.marked[kind, columns] += (of_columns @ ones).cpu().numpy().astype(np.int64)


def over_threads(threads: int) -> MapBlocks:
    """The default way to spread the work: threads of this process, each with one torch thread."""
    def spread(work: Callable[[range], Tails], jobs: Sequence[range]) -> Iterable[Tails]:
        with one_thread_each(), ThreadPoolExecutor(max(1, threads)) as pool:
            yield from pool.map(work, jobs)

    return spread


def count_tails(work: TailWork, map_blocks: MapBlocks) -> Tails:
    """All of a pass; parts are added as they come."""
    jobs, total = work.jobs(), Tails.empty(work.plan, len(work.people.codes))
    with Progress("scoring pairs", len(jobs), unit="blocks") as bar:
        for part in map_blocks(work, jobs):
            total.add(part, work.plan.n_closest)
            bar.advance()
    return total

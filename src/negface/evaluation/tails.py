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
from negface.foundation.threads import torch_threads

from .inputs import Gallery
from .int8_scores import Int8Gallery
from .nearest import Nearest
from .scoring import LATTICE, Tiles, cut_closest, note_closest
from .tile_counts import CELLS, Desk, lattice_bins

FINE = 1 << 27
ERROR_UNITS = 1 << 22
# Large, so that little of the time goes to the calls around the counting.
TILE_SHAPES = {"cpu": (1024, 1024), "cuda": (4096, 16384)}

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
    int64 ``[4]`` of the differences between int8 and float32 scores, in 2^-22: number, sum of squares, number beyond
    the slack, largest;
    ``nearest`` float32 ``[n]`` and ``nearest_row`` int64 ``[n]``: cosine to the nearest training row, -2 if none.
    """

    lattice: np.ndarray
    fine: list[np.ndarray]
    placed: np.ndarray
    marked: np.ndarray
    errors: np.ndarray = field(default_factory=lambda: np.zeros(4, np.int64))
    closest: dict[tuple[int, int], tuple[float, int, int]] = field(default_factory=dict)
    floor: float = -2.0
    nearest: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    nearest_row: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @staticmethod
    def empty(plan: TailPlan, n: int) -> Tails:
        """Nothing counted yet."""
        return Tails(np.zeros(CELLS, np.int64), [np.zeros((end - first) * (FINE // LATTICE) + 2, np.int64)
                                                  for first, end in plan.spans],
                     np.zeros(len(plan.spans), np.int64), np.zeros((len(plan.marks) + 1, n), np.int64),
                     floor=plan.floor, nearest=np.full(n, -2, np.float32), nearest_row=np.zeros(n, np.int64))

    def add(self, other: Tails, wanted: int) -> None:
        """Count another part of the work too."""
        self.lattice += other.lattice
        self.placed += other.placed
        self.marked += other.marked
        for mine, part in zip(self.fine, other.fine, strict=True):
            mine += part
        self.errors[:3] += other.errors[:3]
        self.errors[3] = max(self.errors[3], other.errors[3])
        for key, found in other.closest.items():
            if key not in self.closest or (-found[0], found[1:]) < (-self.closest[key][0], self.closest[key][1:]):
                self.closest[key] = found
        cut_closest(self, wanted)
        # Every image belongs to one part.
        nearer = other.nearest > self.nearest
        self.nearest[nearer], self.nearest_row[nearer] = other.nearest[nearer], other.nearest_row[nearer]

    @property
    def bins(self) -> np.ndarray:
        """Counts between the lattice's edges -1, -1 + 2^-15 … 1, and beyond either end; int64 ``[2 * 2**15 + 2]``."""
        return lattice_bins(self.lattice)


@dataclass(frozen=True)
class TailWork:
    """One pass over a gallery; called with a range of strips it returns their ``Tails``. It can be pickled.

    ``training``: also find the nearest of its rows to every image (``training_int8``: with int8).
    """

    people: Gallery
    plan: TailPlan
    int8: Int8Gallery | None = None
    device: str = "cpu"
    shape: tuple[int, int] | None = None
    block: int = 4096
    training: Gallery | None = None
    training_int8: Int8Gallery | None = None

    @cached_property
    def tiles(self) -> Tiles:
        """On its device once, however many jobs there are."""
        return self._tiled(self.people)

    @cached_property
    def training_tiles(self) -> Tiles:
        """The same of the training set."""
        return self._tiled(self.training)

    def _tiled(self, people: Gallery) -> Tiles:
        return Tiles(people, self.device, self.shape or TILE_SHAPES[torch.device(self.device).type])

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key not in ("tiles", "training_tiles")}

    def jobs(self) -> list[range]:
        """The strips, cut into units of work."""
        n_strips, size = self.tiles.n_strips, max(1, -(-self.block // self.tiles.rows))
        return [range(at, min(at + size, n_strips)) for at in range(0, n_strips, size)]

    def __call__(self, strips: range) -> Tails:
        out, desk = Tails.empty(self.plan, len(self.people.codes)), Desk(self.tiles, self.int8)
        # Columns outermost: their rows of the matrix are the most, and stay near for all of the strips.
        for column in self.tiles.columns(strips.start):
            for strip in strips:
                if column in self.tiles.columns(strip) and self.tiles.has_impostors(strip, column):
                    self._count_tile(desk.score(strip, column), out)
        if self.training is not None:
            both = (self.int8, self.training_int8) if self.int8 and self.training_int8 else None
            Nearest(self.tiles, self.training_tiles, both).look(strips, out.nearest, out.nearest_row)
        return out

    def _count_tile(self, desk: Desk, out: Tails) -> None:
        slack = self.int8.slack if self.int8 else 0.0
        desk.pick_up(self.plan.spans[0][0] / LATTICE - slack)
        for span, (first, end) in enumerate(self.plan.spans):
            found = desk.between(first / LATTICE - slack, end / LATTICE + slack)
            out.placed[span] += len(found)
            if len(found):
                _count_fine(out.fine[span], self._exact(desk, found[:: self.plan.every[span]], out), first / LATTICE)
        if self.plan.marks and desk.number % self.plan.mark_stride == 0:
            desk.count_marked(self.plan.marks, out.marked)
        if self.plan.n_closest:
            self._note_closest(desk, out)
        desk.count_lattice(out.lattice)

    def _exact(self, desk: Desk, flat: np.ndarray, out: Tails) -> np.ndarray:
        """Float32 scores of some pairs of a tile, by flat index."""
        if not len(flat) or self.int8 is None:
            return desk.values(flat)
        exact = desk.rescored(flat)
        off = np.rint(np.abs(exact - desk.values(flat)) * ERROR_UNITS).astype(np.int64)
        beyond = int((off > self.int8.slack * ERROR_UNITS).sum())
        out.errors += (len(off), int((off**2).sum()), beyond, 0)
        out.errors[3] = max(out.errors[3], int(off.max()))
        return exact

    def _note_closest(self, desk: Desk, out: Tails) -> None:
        flat = desk.between(out.floor - (self.int8.slack if self.int8 else 0.0), None)
        if not len(flat):
            return
        values = self._exact(desk, flat, out)
        first, second = (rows[values > out.floor] for rows in desk.rows_of(flat))
        note_closest(values[values > out.floor], first, second, 0, 0, self.people.codes, self.people.codes,
                     self.plan.n_closest, out)


def _count_fine(fine: np.ndarray, scores: np.ndarray, low: float) -> None:
    cells = np.floor((scores.astype(np.float64) - low) * FINE).astype(np.int64) + 1
    # The lattice is far longer than a tile's find, so single steps beat a table of its length.
    np.add.at(fine, cells.clip(0, len(fine) - 1), 1)


def over_threads(threads: int) -> MapBlocks:
    """The default way to spread the work: threads of this process, each with one torch thread."""
    def spread(work: Callable[[range], Tails], jobs: Sequence[range]) -> Iterable[Tails]:
        with torch_threads(1), ThreadPoolExecutor(max(1, threads)) as pool:
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

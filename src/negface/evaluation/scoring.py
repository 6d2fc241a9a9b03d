"""Every pair of a gallery, once, without an n x n matrix: tiles of cosines, counted as they are made.

Tiles have one fixed, padded shape and sums are taken tile row by tile row, so the answer does not depend on how the
work is cut into blocks or on the number of threads. Scores are binned on a lattice of 2^-15, where binning is exact.
Counts are kept per pair of identities for as long as it takes to weigh them with every bootstrap replicate.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from negface.foundation.noise import keyed_generator
from negface.foundation.progress import Progress
from negface.foundation.threads import torch_threads

from .inputs import Gallery

ROWS, COLUMNS = 256, 1024
LATTICE = 1 << 15
HISTOGRAM_BINS = 256
_COARSE = 2 * LATTICE // HISTOGRAM_BINS
# One spare histogram cell on either side: cosines may leave [-1, 1] by rounding, and cell 0 takes what is not counted.
_OFFSET = LATTICE + _COARSE
_CELLS = 2 * LATTICE + 2 * _COARSE
_TABLE_BYTES = 64 << 20
_BATCH_ELEMENTS = 1 << 20
_OWN_SIDE = 1024
# Stands for a score where there is none to count: two cells below -1, where no rounding puts a cosine.
NOT_COUNTED = -1 - 2 / LATTICE


@dataclass(frozen=True)
class Plan:
    """What a scan counts.

    ``edges`` int64 ``[t]``, ascending lattice indices: bin ``k`` holds ``edges[k-1] <= score * 2**15 < edges[k]``;
    ``keep`` bool ``[t+1]``, bins whose scores are kept one by one; ``multiplicity`` float64 ``[identities,
    replicates]``; ``centre`` is taken off scores before moments; ``floor`` is a score that ``n_closest`` pairs of
    identities exceed.
    """

    edges: np.ndarray
    keep: np.ndarray
    multiplicity: np.ndarray
    centre: float = 0.0
    floor: float = -2.0
    n_closest: int = 20

    @property
    def thresholds(self) -> np.ndarray:
        """The edges as cosines, float64 (exact)."""
        return self.edges / LATTICE


@dataclass
class Impostors:
    """All pairs of different people, counted.

    ``bins`` int64 ``[t+1]``; ``histogram`` int64 ``[256]`` over [-1, 1]; ``moments`` float64 ``[2]``, sums of ``s -
    c`` and ``(s - c)**2``; ``weighted_bins`` ``[t+1, replicates]`` and ``weighted_moments`` ``[2, replicates]``, in
    which a pair of people a and b weighs m_a * m_b; ``kept`` the scores of kept bins, ascending; ``closest`` (score,
    image, image).
    """

    bins: np.ndarray
    histogram: np.ndarray
    moments: np.ndarray
    weighted_bins: np.ndarray
    weighted_moments: np.ndarray
    kept: np.ndarray
    closest: list[tuple[float, int, int]]


@dataclass
class _Strip:
    bins: np.ndarray
    histogram: np.ndarray
    weighted_bins: np.ndarray
    moments: np.ndarray = field(default_factory=lambda: np.zeros(2))
    weighted_moments: np.ndarray | None = None
    kept: list[np.ndarray] = field(default_factory=list)
    closest: dict[tuple[int, int], tuple[float, int, int]] = field(default_factory=dict)
    floor: float = -2.0


class Tiles:
    """Cosines of a gallery in tiles of the upper triangle, always multiplied in the full shape, padded at the edges.

    ``shape``: rows and columns of a tile.
    """

    def __init__(self, people: Gallery, device: str = "cpu", shape: tuple[int, int] = (ROWS, COLUMNS)):
        self.n, self.codes = len(people.codes), people.codes
        self.rows, self.width = shape
        self.matrix = torch.from_numpy(people.embeddings).to(device)

    @property
    def n_strips(self) -> int:
        return -(-self.n // self.rows)

    def columns(self, strip: int) -> range:
        """First columns of the tiles that a strip of rows needs."""
        return range(strip * self.rows // self.width * self.width, self.n, self.width)

    def has_impostors(self, strip: int, column: int) -> bool:
        """Whether a tile holds a pair of different people (codes ascend)."""
        return bool(self.column_codes(column)[-1] > self.row_codes(strip)[0])

    def padded(self, matrix: torch.Tensor, start: int, size: int) -> torch.Tensor:
        """``size`` rows of a matrix from ``start``, zeros beyond its end."""
        part = matrix[start : start + size]
        return part if len(part) == size else torch.nn.functional.pad(part, (0, 0, 0, size - len(part)))

    def row_block(self, strip: int) -> torch.Tensor:
        """Embeddings of a strip, float32 ``[rows, d]``."""
        return self.padded(self.matrix, strip * self.rows, self.rows)

    def column_block(self, column: int) -> torch.Tensor:
        """Embeddings of a tile's columns, float32 ``[width, d]``."""
        return self.padded(self.matrix, column, self.width)

    def scores(self, strip: int, column: int) -> torch.Tensor:
        """One tile, cut to what is not padding; float32."""
        tile = torch.mm(self.row_block(strip), self.column_block(column).T)
        return tile[: self.n - strip * self.rows, : self.n - column]

    def row_codes(self, strip: int) -> np.ndarray:
        return self.codes[strip * self.rows : (strip + 1) * self.rows]

    def column_codes(self, column: int) -> np.ndarray:
        return self.codes[column : column + self.width]


def same_size_batches(people: Gallery) -> list[np.ndarray]:
    """Codes, int64 ``[b]``, of people with equally many images; everybody once."""
    batches: list[np.ndarray] = []
    for size in np.unique(people.sizes).tolist():
        chosen = np.flatnonzero(people.sizes == size)
        per_batch = max(1, _BATCH_ELEMENTS // (size * max(size, people.embeddings.shape[1])))
        batches += [chosen[at : at + per_batch] for at in range(0, len(chosen), per_batch)]
    return batches


def first_rows(people: Gallery) -> np.ndarray:
    """Where each person's images begin, int64 ``[identities]``."""
    return np.concatenate([[0], people.sizes.cumsum()[:-1]])


def images_of(people: Gallery, batch: np.ndarray, starts: np.ndarray) -> torch.Tensor:
    """The images of a batch of people, float32 ``[b, images, d]``; ``starts``: everyone's first row."""
    size, matrix = int(people.sizes[batch[0]]), torch.from_numpy(people.embeddings)
    if batch[-1] - batch[0] + 1 == len(batch):
        return matrix[starts[batch[0]] :][: len(batch) * size].view(len(batch), size, -1)
    return matrix[torch.from_numpy(starts[batch][:, None] + np.arange(size))]


def own_tiles(images: torch.Tensor) -> Iterator[torch.Tensor]:
    """Scores of people's own pairs, float32 ``[b, rows, columns]``, ``NOT_COUNTED`` where a pair stands elsewhere.

    One tile, or several of 1,024 x 1,024 for people with more images.
    """
    for row in range(0, images.shape[1], _OWN_SIDE):
        for column in range(row, images.shape[1], _OWN_SIDE):
            scores = torch.bmm(images[:, row : row + _OWN_SIDE], images[:, column : column + _OWN_SIDE].transpose(1, 2))
            if row == column:
                again = torch.ones(scores.shape[1:], dtype=torch.bool, device=scores.device).tril_()
                scores.masked_fill_(again, NOT_COUNTED)
            yield scores


def genuine_scores(people: Gallery) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of all pairs of images of one person, person by person: float32 ``[n_genuine]`` and the identity's code,
    int32. For sets that are drawn again and need them one by one: 8 bytes a pair (``genuine`` does without)."""
    pairs, starts = people.sizes * (people.sizes - 1) // 2, first_rows(people)
    scores, at = np.empty(people.n_genuine, np.float32), np.concatenate([[0], pairs.cumsum()[:-1]])
    with torch_threads(1):
        for batch in same_size_batches(people):
            for tile in own_tiles(images_of(people, batch, starts)):
                found = tile[tile > NOT_COUNTED].view(len(batch), -1).numpy()
                scores[at[batch][:, None] + np.arange(found.shape[1])] = found
                at[batch] += found.shape[1]
    return scores, np.repeat(np.arange(people.n_identities, dtype=np.int32), pairs)


def sample_impostors(people: Gallery, count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of random pairs of different people, about ``count`` of them, and their rows; where to look, not a
    result."""
    random = keyed_generator("impostor sample", seed)
    first, second = random.integers(0, len(people.codes), (2, count))
    different = people.codes[first] != people.codes[second]
    first, second = first[different], second[different]
    parts = [np.einsum("nd,nd->n", people.embeddings[first[at : at + 1024]], people.embeddings[second[at : at + 1024]])
             for at in range(0, len(first), 1024)]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32), first, second


def scan(people: Gallery, plan: Plan, *, block: int = 4096, threads: int = 1) -> Impostors:
    """Count all pairs of different people.

    ``block``: images in a unit of work (rounded up to 256); it changes neither memory nor result. Costs 2 d operations
    a pair plus 2 t a pair of *identities* and replicate.
    """
    tiles = Tiles(people)
    per_job = max(1, -(-block // ROWS))
    jobs = [range(at, min(at + per_job, tiles.n_strips)) for at in range(0, tiles.n_strips, per_job)]
    luts, weights = _lookup(plan), torch.from_numpy(plan.multiplicity.astype(np.float32))

    def work(strips: range) -> list[_Strip]:
        return [_scan_strip(tiles, plan, luts, weights, strip) for strip in strips]

    done: list[_Strip] = []
    with torch_threads(1), ThreadPoolExecutor(max(1, threads)) as pool:
        with Progress("scoring pairs", tiles.n_strips, unit="rows of tiles") as bar:
            for strips in pool.map(work, jobs):
                done.extend(strips)
                bar.advance(len(strips))
                if len(done) > 64:
                    done = [_merge(done, plan)]
    merged = _merge(done, plan)
    kept = np.sort(np.concatenate(merged.kept)) if merged.kept else np.zeros(0, np.float32)
    closest = sorted(merged.closest.values(), key=lambda item: (-item[0], item[1], item[2]))[: plan.n_closest]
    closest = [(score, int(people.order[i]), int(people.order[j])) for score, i, j in closest]
    return Impostors(merged.bins, merged.histogram, merged.moments, merged.weighted_bins, merged.weighted_moments,
                     kept, closest)


def _lookup(plan: Plan) -> tuple[torch.Tensor, torch.Tensor]:
    bins = np.searchsorted(plan.edges, np.arange(_CELLS) - _OFFSET, side="right").astype(np.int32)
    keep = plan.keep[bins]
    bins[0], keep[0] = len(plan.edges) + 1, False
    return torch.from_numpy(bins), torch.from_numpy(keep)


def _scan_strip(tiles: Tiles, plan: Plan, luts: tuple[torch.Tensor, torch.Tensor], weights: torch.Tensor,
                strip: int) -> _Strip:
    rows = tiles.row_codes(strip)
    n_rows, n_bins = int(rows[-1] - rows[0]) + 1, len(plan.edges) + 1
    replicates = plan.multiplicity.shape[1]
    out = _Strip(np.zeros(n_bins, np.int64), np.zeros(HISTOGRAM_BINS, np.int64), np.zeros((n_bins, replicates)),
                 weighted_moments=np.zeros((2, replicates)), floor=plan.floor)
    capacity = max(1, _TABLE_BYTES // (4 * n_rows * n_bins))
    group: list[tuple[int, torch.Tensor]] = []
    moments = torch.zeros(2, n_rows, weights.shape[0] - int(rows[0]), dtype=torch.float64)
    for column in tiles.columns(strip):
        columns = tiles.column_codes(column)
        if columns[-1] <= rows[0]:
            continue
        counts, pair_moments = _scan_tile(tiles, plan, luts, strip, column, out)
        first = max(int(columns[0]), int(rows[0])) - int(rows[0])
        skip = max(0, int(rows[0]) - int(columns[0]))
        moments[:, :, first : first + pair_moments.shape[2] - skip] += pair_moments[:, :, skip:]
        if group and int(columns[-1]) - group[0][0] >= capacity:
            _weigh(group, weights, rows, out)
            group = []
        group.append((int(columns[0]), counts))
    if group:
        _weigh(group, weights, rows, out)
    out.moments = moments.sum(dim=(1, 2)).numpy()
    if replicates:
        exact = torch.from_numpy(plan.multiplicity)
        of_rows = exact[int(rows[0]) : int(rows[0]) + n_rows]
        out.weighted_moments = torch.einsum("xar,ar->xr", moments @ exact[int(rows[0]) :], of_rows).numpy()
    return out


def _scan_tile(tiles: Tiles, plan: Plan, luts: tuple[torch.Tensor, torch.Tensor], strip: int, column: int,
               out: _Strip) -> tuple[torch.Tensor, torch.Tensor]:
    """Count one tile; returns counts ``[rows' identities, columns' identities, bins]`` and moments ``[2, ...]``."""
    scores = tiles.scores(strip, column).contiguous()
    rows, columns = tiles.row_codes(strip), tiles.column_codes(column)
    n_rows, n_columns, n_bins = int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1, len(plan.edges) + 1
    # Rounding may put a cosine a hair below -1; cell 0 is for what is not counted.
    cells = (scores * LATTICE).floor_().to(torch.int32).add_(_OFFSET).clamp_(min=_COARSE)
    centred = scores - plan.centre
    if columns[0] <= rows[-1]:
        # Codes ascend, so "code of the row < code of the column" is "different people, each pair once".
        counted = torch.from_numpy(rows)[:, None] < torch.from_numpy(columns)[None]
        cells, centred = cells * counted, centred * counted
        scores = scores.masked_fill(~counted, -2.0)
    flat = cells.view(-1)
    pairs = (torch.from_numpy(rows - rows[0])[:, None] * n_columns + torch.from_numpy(columns - columns[0])[None])
    bins = torch.index_select(luts[0], 0, flat).view_as(cells) + pairs * (n_bins + 1)
    counts = torch.bincount(bins.view(-1), minlength=n_rows * n_columns * (n_bins + 1))
    counts = counts.view(n_rows, n_columns, n_bins + 1)[:, :, :n_bins]
    out.bins += counts.sum(dim=(0, 1)).numpy()
    coarse = torch.bincount(flat // _COARSE, minlength=HISTOGRAM_BINS + 2).numpy()
    out.histogram += coarse[1:-1]
    # A cosine of exactly 1, or a rounding beyond it, belongs to the last bin.
    out.histogram[-1] += coarse[-1]
    if plan.keep.any():
        kept = np.flatnonzero(torch.index_select(luts[1], 0, flat).numpy())
        if len(kept):
            out.kept.append(scores.view(-1).numpy()[kept])
    _note_closest(scores, strip * tiles.rows, column, rows, columns, plan.n_closest, out)
    return counts, _pair_moments(centred, rows, columns, n_rows, n_columns)


def _pair_moments(centred: torch.Tensor, rows: np.ndarray, columns: np.ndarray, n_rows: int,
                  n_columns: int) -> torch.Tensor:
    of_rows = torch.zeros(n_rows, len(rows))
    of_rows[torch.from_numpy(rows - rows[0]).long(), torch.arange(len(rows))] = 1
    of_columns = torch.zeros(len(columns), n_columns)
    of_columns[torch.arange(len(columns)), torch.from_numpy(columns - columns[0]).long()] = 1
    return torch.stack([of_rows @ centred @ of_columns, of_rows @ (centred * centred) @ of_columns]).double()


def _note_closest(scores: torch.Tensor, row: int, column: int, rows: np.ndarray, columns: np.ndarray, wanted: int,
                  out: _Strip) -> None:
    if not wanted or float(scores.max()) <= out.floor:
        return
    at_row, at_column = (scores > out.floor).nonzero(as_tuple=True)
    note_closest(scores[at_row, at_column].numpy(), at_row.numpy(), at_column.numpy(), row, column, rows, columns,
                 wanted, out)


def note_closest(values: np.ndarray, at_row: np.ndarray, at_column: np.ndarray, row: int, column: int,
                 rows: np.ndarray, columns: np.ndarray, wanted: int, out: Any) -> None:
    """Keep the highest score of each of the closest pairs of people: ``values`` at places of a tile that starts at
    (row, column) and whose codes are ``rows`` and ``columns``; ``out.closest`` and ``out.floor`` are brought up."""
    pair = rows[at_row].astype(np.int64) << 32 | columns[at_column]
    best_first = np.lexsort((at_column, at_row, -values))
    _, first = np.unique(pair[best_first], return_index=True)
    for at in best_first[first]:
        key = (int(rows[at_row[at]]), int(columns[at_column[at]]))
        found = (float(values[at]), int(at_row[at]) + row, int(at_column[at]) + column)
        if key not in out.closest or (-found[0], found[1:]) < (-out.closest[key][0], out.closest[key][1:]):
            out.closest[key] = found
    cut_closest(out, wanted)


def cut_closest(out: Any, wanted: int) -> None:
    """Forget all but the ``wanted`` closest pairs of people, and raise the floor to the last of them."""
    if wanted and len(out.closest) >= wanted:
        best = sorted(out.closest.items(), key=lambda item: (-item[1][0], item[1][1:]))[:wanted]
        out.closest = dict(best)
        out.floor = max(out.floor, best[-1][1][0])


def _weigh(group: list[tuple[int, torch.Tensor]], weights: torch.Tensor, rows: np.ndarray, out: _Strip) -> None:
    """Add ``sum over pairs of people of m_a m_b counts[a, b, bin]`` for a run of tiles to every replicate."""
    if weights.shape[1] == 0:
        return
    start, end = group[0][0], group[-1][0] + group[-1][1].shape[1]
    n_rows, n_bins = group[0][1].shape[0], group[0][1].shape[2]
    table = torch.zeros(n_rows, n_bins, end - start)
    for first, counts in group:
        table[:, :, first - start : first - start + counts.shape[1]] += counts.transpose(1, 2)
    # Integers in float32: exact below 2**24, beyond it good to 6e-8; the sum over rows is taken in float64.
    of_rows = (table.view(-1, end - start) @ weights[start:end]).view(n_rows, n_bins, -1)
    for row in range(n_rows):
        out.weighted_bins += (of_rows[row].double() * weights[int(rows[0]) + row]).numpy()


def _merge(strips: list[_Strip], plan: Plan) -> _Strip:
    """Add strips in their order; counts are integers, and moments are always added in the same order."""
    total = strips[0]
    for part in strips[1:]:
        total.bins += part.bins
        total.histogram += part.histogram
        total.weighted_bins += part.weighted_bins
        total.moments = total.moments + part.moments
        total.weighted_moments = total.weighted_moments + part.weighted_moments
        total.kept.extend(part.kept)
        for key, found in part.closest.items():
            if key not in total.closest or (-found[0], found[1:]) < (-total.closest[key][0], total.closest[key][1:]):
                total.closest[key] = found
    cut_closest(total, plan.n_closest)
    return total

"""Pairs of images of one person: scored as often as something is asked of them, counted, and not kept.

They are few beside the pairs of different people, but 1,000 people x 500 images still have 125 million; scoring them
again takes seconds, and memory then depends on neither. Batches are fixed and multiplied by one thread each, so a score
is the same every time, and counts are integers: threads change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import numpy as np
import torch

from negface.foundation.progress import Progress
from negface.foundation.threads import torch_threads

from .inputs import Gallery
from .scoring import LATTICE, NOT_COUNTED, first_rows, images_of, own_tiles, same_size_batches
from .tile_counts import CELLS, OFFSET, lattice_bins

_PARTS = 64

# Codes of a batch of people, int64 [b], and a tile of their scores (``scoring.own_tiles``).
Visit = Callable[[np.ndarray, torch.Tensor], None]


def sums_with_others(people: Gallery) -> np.ndarray:
    """The sum of each person's scores with everybody else's images, float64 ``[identities]``.

    With s_a the sum of a person's rows and S that of all: s_a (S - s_a).
    """
    starts, out = first_rows(people), np.empty(people.n_identities)
    # In numpy, which does not copy to float64 first.
    everybody = torch.from_numpy(np.add.reduce(people.embeddings, axis=0, dtype=np.float64))
    for batch in same_size_batches(people):
        own = images_of(people, batch, starts).sum(dim=1, dtype=torch.float64)
        out[batch] = (own @ everybody - own.square().sum(dim=1)).numpy()
    return out


def count_genuine(people: Gallery, *, threads: int = 1, device: str = "cpu") -> tuple[np.ndarray, np.ndarray]:
    """Everyone's sum of scores and of squared scores, float64 ``[2, identities]``, and the scores by bin
    (``ranked.bin_of``), int64."""
    sums, lattice, lock = np.zeros((2, people.n_identities)), np.zeros(CELLS, np.int64), Lock()

    def visit(batch: np.ndarray, tile: torch.Tensor) -> None:
        exact = tile.double().masked_fill_(tile == NOT_COUNTED, 0)
        # A person's tiles come one after another.
        sums[0, batch] += exact.sum(dim=(1, 2)).cpu().numpy()
        sums[1, batch] += exact.square_().sum(dim=(1, 2)).cpu().numpy()
        counts = torch.bincount(_cells(tile).view(-1), minlength=CELLS).cpu().numpy()
        with lock:
            lattice[:] += counts

    _stream(people, visit, threads, device)
    return sums, lattice_bins(lattice)


def distinct_genuine(people: Gallery, bins: np.ndarray, *, threads: int = 1,
                     device: str = "cpu") -> tuple[np.ndarray, np.ndarray]:
    """The distinct scores of some bins, bool ``[LAST_BIN + 1]``: float32, ascending, and how many pairs have each,
    int64."""
    wanted = torch.from_numpy(np.concatenate([[False], bins, bins[-1:]])).to(device)
    parts, lock = [(np.zeros(0, np.float32), np.zeros(0, np.int64))], Lock()

    def visit(_: np.ndarray, tile: torch.Tensor) -> None:
        found = tile.view(-1)[wanted[_cells(tile).view(-1)]].cpu().numpy()
        if not len(found):
            return
        part = np.unique(found, return_counts=True)
        with lock:
            parts.append(part)
            if len(parts) > _PARTS:
                parts[:] = [_together(parts)]

    _stream(people, visit, threads, device)
    return _together(parts)


def missed_genuine(people: Gallery, thresholds: Sequence[float], *, threads: int = 1,
                   device: str = "cpu") -> np.ndarray:
    """How many of each person's scores lie below each threshold (float32, in [-1, 1]), int64 ``[k, identities]``."""
    missed = np.repeat((people.sizes * (people.sizes - 1) // 2)[None], len(thresholds), axis=0)

    def visit(batch: np.ndarray, tile: torch.Tensor) -> None:
        for kind, threshold in enumerate(thresholds):
            missed[kind, batch] -= (tile >= threshold).sum(dim=(1, 2)).cpu().numpy()

    _stream(people, visit, threads, device)
    return missed


def _together(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    values, place = np.unique(np.concatenate([part[0] for part in parts]), return_inverse=True)
    counts = np.zeros(len(values), np.int64)
    np.add.at(counts, place, np.concatenate([part[1] for part in parts]))
    return values, counts


def _cells(tile: torch.Tensor) -> torch.Tensor:
    return (tile * LATTICE).floor_().add_(OFFSET).to(torch.int32)


def _stream(people: Gallery, visit: Visit, threads: int = 1, device: str = "cpu") -> None:
    """Show every pair once; a person's tiles come in order and from one thread."""
    starts = first_rows(people)

    def work(batch: np.ndarray) -> None:
        for tile in own_tiles(images_of(people, batch, starts).to(device)):
            visit(batch, tile)

    batches = [batch for batch in same_size_batches(people) if people.sizes[batch[0]] > 1]
    with torch_threads(1), ThreadPoolExecutor(max(1, threads)) as pool:
        with Progress("scoring people's own pairs", len(batches), unit="batches") as bar:
            for _ in pool.map(work, batches):
                bar.advance()

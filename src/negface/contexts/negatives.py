"""Negative contexts: for each identity (or image), the one it must not look like.

Close, mid, far, random and the zero null are NegFaceDiff's (arXiv 2508.09661); selection is in the space of the
contexts, exact by cosine over the pool, and never picks the identity itself (by id, so a pool may hold the bank).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..foundation import registry
from ..foundation.errors import InputError
from ..foundation.noise import keyed_generator
from . import similarity
from .bank import ContextBank
from .selection import FREE, LEARNED, MEMBER, NONE, ZERO, Selection

__all__ = ["Selection", "cosines", "draw", "names", "select", "select_per_image"]


@dataclass(frozen=True)
class Task:
    """What a strategy is given: ``own[i]`` is the pool row of identity i, or -1 where the pool does not hold it."""

    strategy: str
    bank: ContextBank
    pool: ContextBank
    own: np.ndarray
    seed: int
    block_rows: int | None = None


def names() -> list[str]:
    """Names of the strategies."""
    return registry.names("negative")


def select(bank: ContextBank, strategy: str, *, pool: ContextBank | None = None, seed: int = 0,
           block_rows: int | None = None) -> Selection:
    """One negative for each identity of a bank.

    Args:
        bank: the identities.
        strategy: ``none close far mid random previous null-zero null-learned antipodal``, and the released
            ``mid-with-self``.
        pool: where negatives are taken from; the bank itself by default. Members with the identity's id are left out.
        seed: for ``random``; row i depends on the seed, its id and the pool's size, not on the rest of the bank.
        block_rows: identities ranked at a time (memory only; the answer is the same for every value).

    Returns ``Selection`` of n rows. Errors: ``UnknownNameError`` with a suggestion; ``InputError`` if the pool has
    another dimension or holds nobody else; ``MismatchError`` if it belongs to another conditioner.
    """
    choose: Callable[[Task], Selection] = registry.load("negative", strategy)
    if block_rows is not None and block_rows < 1:
        raise InputError(f"must be at least 1, not {block_rows}", where="block_rows")
    return choose(_task(bank, strategy, pool, seed, block_rows))


def select_per_image(bank: ContextBank, strategy: str, rows: Sequence[int], images: Sequence[int], *,
                     pool: ContextBank | None = None, seed: int = 0) -> Selection:
    """One negative for each image: row k is for image ``images[k]`` of identity ``rows[k]`` of the bank.

    Only ``random`` draws; a strategy that gives every image of an identity the same negative is an ``InputError``.
    The draw is keyed by (seed, identity id, image), so it does not depend on the other images.
    """
    registry.entry("negative", strategy)
    if strategy != "random":
        raise InputError(f"gives all images of an identity the same negative: {strategy!r} has no scope 'image'",
                         where="strategy", fix="use strategy 'random', or scope 'identity'")
    rows, images = np.asarray(rows, dtype=np.int64), np.asarray(images, dtype=np.int64)
    if rows.shape != images.shape or rows.ndim != 1:
        raise InputError(f"{list(rows.shape)} rows for {list(images.shape)} images", where="images")
    if len(rows) and (rows.min() < 0 or rows.max() >= len(bank)):
        raise InputError(f"rows must lie in 0 … {len(bank) - 1}", where="rows")
    task = _task(bank, strategy, pool, seed, None)
    _need_others(task)
    return _members(task, np.array([_draw(task, row, int(image)) for row, image in zip(rows, images)], dtype=np.int64),
                    scope="image")


def draw(bank: ContextBank, row: int, image: int, *, pool: ContextBank | None = None, seed: int = 0) -> int:
    """Pool row of the random negative of one image; the same as ``select_per_image`` gives."""
    return int(select_per_image(bank, "random", [row], [image], pool=pool, seed=seed).indices[0])


def cosines(bank: ContextBank, selection: Selection, rows: Sequence[int] | None = None) -> np.ndarray:
    """float64 ``[n]``: cosine of each positive and its negative; NaN where there is no vector or a zero one.

    ``rows`` names the bank's row for each row of the selection (needed for scope ``image``).
    """
    positives = bank.contexts if rows is None else bank.contexts[np.asarray(rows)]
    if positives.shape != selection.negatives.shape:
        raise InputError(f"{list(selection.negatives.shape)} negatives for {list(positives.shape)} contexts",
                         where="selection")
    readable = selection.kind <= FREE
    result = np.full(len(selection), np.nan)
    result[readable] = similarity.paired_cosines(positives[readable], selection.negatives[readable])
    return result


def none(task: Task) -> Selection:
    """No negative: plain sampling with one prediction a step."""
    return _without_vector(task, NONE)


def null_zero(task: Task) -> Selection:
    """Zeros before the model's context projection: what the published tables call Null."""
    return _without_vector(task, ZERO)


def null_learned(task: Task) -> Selection:
    """The model's trained empty context: classifier-free guidance with scale ``1 + w``."""
    return _without_vector(task, LEARNED)


def antipodal(task: Task) -> Selection:
    """``-c``: the farthest direction there is, in no pool."""
    count = len(task.bank)
    return Selection(np.full(count, FREE, np.uint8), np.full(count, -1, np.int64), -task.bank.contexts,
                     _provenance(task))


def close(task: Task) -> Selection:
    """The most similar other identity of the pool."""
    return _ranked(task, similarity.choose_nearest)


def far(task: Task) -> Selection:
    """The least similar identity of the pool."""
    return _ranked(task, similarity.choose_farthest)


def mid(task: Task) -> Selection:
    """The other identity of middle rank, ``(m - 1) // 2`` of m."""
    return _ranked(task, similarity.choose_median)


def mid_with_self(task: Task) -> Selection:
    """The released code's Mid-Neg: the identity is ranked among its candidates, and the upper median taken."""
    selection = _ranked(task, similarity.choose_upper_median)
    itself = np.flatnonzero(selection.indices == task.own)
    if len(itself):
        raise InputError(f"makes {task.bank.ids[itself[0]]!r} its own negative: the pool is too small, or full of "
                         "copies", where="strategy 'mid-with-self'", fix="use a larger pool, or the strategy 'mid'")
    return selection


def random(task: Task) -> Selection:
    """A uniform draw among the others, one for each identity."""
    _need_others(task)
    return _members(task, np.array([_draw(task, row) for row in range(len(task.bank))], dtype=np.int64))


def previous(task: Task) -> Selection:
    """The identity before this one in the pool; the first takes the last (what the released code calls Rand)."""
    missing = np.flatnonzero(task.own < 0)
    if len(missing):
        raise InputError(f"does not hold {task.bank.ids[missing[0]]!r}", where="pool",
                         fix="'previous' needs a pool that holds the bank's identities; leave the pool out")
    _need_others(task)
    return _members(task, (task.own - 1) % len(task.pool))


def _task(bank: ContextBank, strategy: str, pool: ContextBank | None, seed: int, block_rows: int | None) -> Task:
    pool = bank if pool is None else pool
    if pool.dim != bank.dim:
        raise InputError(f"has contexts of length {pool.dim}, the bank {bank.dim}", where="pool")
    if pool is bank:
        own = np.arange(len(bank), dtype=np.int64)
    else:
        bank.check_conditioner(pool.conditioner, what="the pool")
        own = np.array([pool.row_of.get(identity, -1) for identity in bank.ids], dtype=np.int64)
    return Task(strategy, bank, pool, own, int(seed), block_rows)


def _need_others(task: Task) -> None:
    if len(task.pool) == 1 and (task.own >= 0).any():
        raise InputError(f"holds nobody but {task.pool.ids[0]!r}: there is no negative to take", where="pool",
                         fix="use a bank of at least two identities, a larger pool, or the strategy 'null-zero'")


def _ranked(task: Task, choose: similarity.Chooser) -> Selection:
    _need_others(task)
    chosen = similarity.pick(task.bank.contexts, task.pool.contexts, task.own, choose,
                             label=f"{task.strategy} negatives", block_rows=task.block_rows)
    return _members(task, chosen)


def _draw(task: Task, row: int, *image: int) -> int:
    own = int(task.own[row])
    generator = keyed_generator(task.seed, task.bank.ids[row], *image, "negative/random")
    drawn = int(generator.integers(len(task.pool) - (own >= 0)))
    return drawn + (0 <= own <= drawn)


def _members(task: Task, chosen: np.ndarray, scope: str = "identity") -> Selection:
    return Selection(np.full(len(chosen), MEMBER, np.uint8), chosen, task.pool.contexts[chosen],
                     _provenance(task, scope))


def _without_vector(task: Task, kind: int) -> Selection:
    count = len(task.bank)
    vectors = np.full((count, task.bank.dim), 0.0 if kind == ZERO else np.nan, dtype=np.float32)
    return Selection(np.full(count, kind, np.uint8), np.full(count, -1, np.int64), vectors, _provenance(task))


def _provenance(task: Task, scope: str = "identity") -> dict[str, object]:
    """What made the selection; the seed and the pool only where they matter, so equal content stays equal."""
    from_pool = task.strategy in ("close", "far", "mid", "mid-with-self", "random", "previous")
    return {"strategy": task.strategy, "scope": scope, "bank": task.bank.hash,
            "seed": task.seed if task.strategy == "random" else None,
            "pool": task.pool.hash if from_pool else None,
            "describes_real_people": from_pool and task.pool.describes_real_people}

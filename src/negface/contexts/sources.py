"""Identity sources: where the people of a dataset come from.

``uniform``, ``two_stage`` and ``authentic`` are IDiff-Face's (arXiv 2308.04995), ``pca`` is Vec2Face's (arXiv
2409.02979). All take and give arrays; sampling pictures and embedding them is the job of higher rooms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..foundation.errors import InputError
from ..foundation.hashing import sha256_array
from ..foundation.noise import keyed_normal
from . import packing
from .bank import ContextBank, unit_rows

PILOT = 1024


def uniform(n: int, dim: int = 512, *, seed: int = 0, max_cosine: float | None = None,
            max_proposals: int | None = None) -> ContextBank:
    """``n`` directions drawn uniformly on the sphere: normalised Gaussians (IDiff-Face, "synthetic uniform").

    Vector i depends on (seed, dim, i) only, never on n; its id is ``u<seed>-<i>``. With ``max_cosine`` too similar
    ones are skipped in a search of at most ``max_proposals`` (default 50 n) proposals (``packing.search``).
    """
    _check_count(n)
    if dim < 2:
        raise InputError(f"must be at least 2, not {dim}", where="dim")

    def propose(start: int, count: int) -> np.ndarray:
        noise = [keyed_normal((dim,), int(seed), dim, row, "context/uniform") for row in range(start, start + count)]
        return unit_rows(np.stack(noise))

    expected = None
    if max_cosine is not None:
        expected = uniform_capacity(n, dim, max_cosine, max_proposals)
    vectors, numbers = _take(propose, n, expected)
    parameters = {"n": n, "dim": dim, **_search_parameters(expected, numbers)}
    return ContextBank(vectors, _ids(f"u{int(seed)}", numbers),
                       {"source": "uniform", "seed": int(seed), "parameters": parameters})


def uniform_capacity(n: int, dim: int, max_cosine: float, max_proposals: int | None = None) -> packing.Capacity:
    """What ``uniform(n, dim, max_cosine=...)`` can expect, before it is run."""
    packing.check_cosine(max_cosine)
    return packing.capacity(dim, max_cosine, packing.uniform_collision(dim, max_cosine),
                            max_proposals or packing.PROPOSALS_PER_IDENTITY * n)


def authentic(embeddings: np.ndarray, labels: Sequence[Any], *, conditioner: Mapping[str, Any] | None = None,
              names: Mapping[Any, str] | Sequence[str] | None = None, real_people: bool = True) -> ContextBank:
    """One context a person: the normalised mean of the person's unit embeddings.

    Args:
        embeddings: ``[n, d]``, any non-zero length (normalised first).
        labels: n person labels (ints or strings); people come out in sorted order, ids are ``names[label]`` or the
            label itself.
        conditioner: name and hash of the recogniser that made the embeddings.
        real_people: False only for pictures of people who do not exist, such as ``negface.population``'s.

    The bank describes real people and says so, unless told that they are none.
    """
    embeddings = _embeddings(embeddings)
    labels = np.asarray(labels)
    if labels.shape != (len(embeddings),):
        raise InputError(f"{list(labels.shape)} labels for {len(embeddings)} embeddings", where="labels")
    people, member = np.unique(labels, return_inverse=True)
    sums = np.zeros((len(people), embeddings.shape[1]))
    np.add.at(sums, member, embeddings.astype(np.float64))
    ids = tuple(str(person if names is None else names[person]) for person in people.tolist())
    provenance = {"source": "authentic", "conditioner": _plain(conditioner), "describes_real_people": bool(real_people),
                  "parameters": {"n_images": len(embeddings), "n_people": len(people)},
                  "parent": sha256_array(embeddings)}
    return ContextBank(unit_rows(sums, what="the mean of person"), ids, provenance)


def two_stage(embeddings: np.ndarray, *, conditioner: Mapping[str, Any] | None = None, n: int | None = None,
              max_cosine: float | None = None, seed: int | None = None) -> ContextBank:
    """One context a picture: embeddings of faces sampled with the learned null (IDiff-Face, "two-stage").

    Args:
        embeddings: ``[k, d]`` of the pictures, in the order they were sampled.
        n: how many are wanted; all that pass by default. With ``max_cosine`` too similar ones are skipped in order;
            ``IncompleteError`` if fewer than n remain.
        seed: the one the pictures were sampled with, for the record.
    """
    embeddings = _embeddings(embeddings)
    n = len(embeddings) if n is None and max_cosine is None else n
    if n is not None:
        _check_count(n)
        if n > len(embeddings):
            raise InputError(f"{n} identities asked for, {len(embeddings)} embeddings given", where="n")
    if max_cosine is None:
        numbers, expected = np.arange(n), None
    else:
        packing.check_cosine(max_cosine)
        collision = packing.pilot_collision(embeddings[:PILOT], max_cosine)
        expected = packing.capacity(embeddings.shape[1], max_cosine, collision, len(embeddings))
        numbers = packing.keep_separated(embeddings, max_cosine) if n is None else packing.search(
            lambda start, count: embeddings[start:start + count], n, expected)[1]
    vectors, parent = embeddings[numbers], sha256_array(embeddings)
    parameters = {"n": len(vectors), "n_pictures": len(embeddings), **_search_parameters(expected, numbers)}
    provenance = {"source": "two-stage", "seed": seed, "conditioner": _plain(conditioner), "parent": parent,
                  "parameters": parameters}
    return ContextBank(vectors, _ids(f"t{parent[:6]}", numbers), provenance)


def pca(embeddings: np.ndarray | ContextBank, n: int, *, seed: int = 0, components: int | None = None,
        max_cosine: float | None = None, max_proposals: int | None = None,
        conditioner: Mapping[str, Any] | None = None) -> ContextBank:
    """Draws from the Gaussian fitted in the principal-component space of real or rendered embeddings, normalised.

    Vec2Face's source: random directions are off the face manifold of most recognisers, these are not. ``x = mean +
    C^(1/2) g`` with C the covariance kept to its ``components`` largest directions (all by default); the symmetric root
    leaves no freedom of sign or rotation, so a draw is defined by the embeddings, the seed and its number alone.

    Args:
        embeddings: a bank, or ``[k, d]`` with k >= 2 (normalised first), best one row a person.
        conditioner: needed with arrays; a bank brings its own.
        max_cosine, max_proposals: as for ``uniform``; what fits is estimated from a pilot of 1,024 draws.
    """
    _check_count(n)
    derived = None
    if isinstance(embeddings, ContextBank):
        conditioner = embeddings.conditioner
        derived = embeddings.describes_real_people or bool(embeddings.provenance.get("derived_from_real_people"))
    rows, parent = _rows_and_hash(embeddings)
    propose, rank = _gaussian(rows, parent, int(seed), components)
    expected = None
    if max_cosine is not None:
        expected = _gaussian_capacity(propose, rank, n, max_cosine, max_proposals)
    vectors, numbers = _take(propose, n, expected)
    parameters = {"n": n, "components": rank, "n_embeddings": len(rows), **_search_parameters(expected, numbers)}
    return ContextBank(vectors, _ids(f"p{int(seed)}-{parent[:6]}", numbers),
                       {"source": "pca", "seed": int(seed), "parameters": parameters, "parent": parent,
                        "conditioner": _plain(conditioner), "derived_from_real_people": derived})


def pca_capacity(embeddings: np.ndarray | ContextBank, n: int, max_cosine: float, *, seed: int = 0,
                 components: int | None = None, max_proposals: int | None = None) -> packing.Capacity:
    """What ``pca(embeddings, n, max_cosine=...)`` can expect, before it is run; from a pilot of 1,024 draws."""
    return _gaussian_capacity(*_gaussian(*_rows_and_hash(embeddings), int(seed), components), n, max_cosine,
                              max_proposals)


def _gaussian_capacity(propose: packing.Proposer, rank: int, n: int, max_cosine: float,
                       max_proposals: int | None) -> packing.Capacity:
    packing.check_cosine(max_cosine)
    pilot = propose(0, PILOT)
    # Mean and components together span one dimension more than the components.
    return packing.capacity(min(rank + 1, pilot.shape[1]), max_cosine, packing.pilot_collision(pilot, max_cosine),
                            max_proposals or packing.PROPOSALS_PER_IDENTITY * n)


def _rows_and_hash(embeddings: np.ndarray | ContextBank) -> tuple[np.ndarray, str]:
    if isinstance(embeddings, ContextBank):
        return embeddings.contexts, embeddings.hash
    rows = _embeddings(embeddings)
    return rows, sha256_array(rows)


def _gaussian(rows: np.ndarray, parent: str, seed: int, components: int | None) -> tuple[packing.Proposer, int]:
    if len(rows) < 2:
        raise InputError(f"needs at least 2 embeddings, not {len(rows)}", where="embeddings")
    wide = rows.astype(np.float64)
    mean = wide.mean(axis=0)
    centred = wide - mean
    values, vectors = np.linalg.eigh(centred.T @ centred / (len(rows) - 1))
    values = np.maximum(values, 0.0)
    rank = int(np.count_nonzero(values > values.max() * 1e-10))
    if rank == 0:
        raise InputError("are all the same, there is nothing to draw from", where="embeddings")
    if components is not None:
        if not 1 <= components <= rank:
            raise InputError(f"must lie in 1 … {rank} (the rank of these embeddings), not {components}",
                             where="components")
        rank = components
    top = slice(len(values) - rank, None)
    root = (vectors[:, top] * np.sqrt(values[top])) @ vectors[:, top].T

    def block(number: int) -> np.ndarray:
        first = number * packing.BLOCK
        keys = range(first, first + packing.BLOCK)
        noise = np.stack([keyed_normal((len(mean),), seed, parent, row, "context/pca") for row in keys])
        return unit_rows(mean + noise.astype(np.float64) @ root)

    def propose(start: int, count: int) -> np.ndarray:
        # Always whole blocks of one shape, so that a draw has the same bits whatever else is drawn with it.
        first, last = start // packing.BLOCK, -(-(start + count) // packing.BLOCK)
        drawn = np.concatenate([block(number) for number in range(first, last)])
        return drawn[start - first * packing.BLOCK:][:count]

    return propose, rank


def _take(propose: packing.Proposer, n: int, expected: packing.Capacity | None) -> tuple[np.ndarray, np.ndarray]:
    return (propose(0, n), np.arange(n)) if expected is None else packing.search(propose, n, expected)


def _search_parameters(expected: packing.Capacity | None, numbers: np.ndarray) -> dict[str, Any]:
    if expected is None:
        return {}
    return {"max_cosine": expected.max_cosine, "proposals": int(numbers[-1]) + 1, "expected": expected.expected}


def _embeddings(embeddings: Any) -> np.ndarray:
    embeddings = np.asarray(embeddings)
    if embeddings.ndim != 2 or embeddings.dtype.kind not in "fiu" or 0 in embeddings.shape:
        raise InputError(f"must be real numbers [n, d], not {embeddings.dtype} {list(embeddings.shape)}",
                         where="embeddings")
    return unit_rows(embeddings)


def _ids(prefix: str, numbers: np.ndarray) -> tuple[str, ...]:
    return tuple(f"{prefix}-{number:06d}" for number in numbers.tolist())


def _plain(conditioner: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if conditioner is None else dict(conditioner)


def _check_count(n: int) -> None:
    if n < 1:
        raise InputError(f"must be at least 1, not {n}", where="n")

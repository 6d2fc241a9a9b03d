"""From a protocol to its people, shots and pairs: pure functions of (protocol, seed, first person).

Every draw has its own key, so a picture or a fold does not depend on how many others there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, islice, product

import numpy as np

from ..foundation.hashing import sha256_json
from ..foundation.noise import keyed_generator
from .likeness import partners
from .protocol_specs import Protocol, Side
from .shots import NUISANCE_NAMES, Shots, sample_shots
from .traits import People, sample_people


@dataclass(frozen=True)
class Pairs:
    """``first`` and ``second`` int64 ``[n, 2]``: person (place among the people) and number of the picture; ``same``
    bool ``[n]``. Folds are contiguous and equal; a fold's genuine pairs come first."""

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray


def cast(protocol: Protocol, *, seed: int, start: int) -> People:
    """The protocol's people in order of folds; look-alikes stand side by side."""
    if protocol.impostors == "random":
        return sample_people(protocol.people, seed=seed, start=start)
    drawn = sample_people(protocol.reserved, seed=seed, start=start)
    anchors = np.arange(protocol.people // 2)
    found = partners(drawn.take(anchors), drawn.take(range(len(anchors), len(drawn)))) + len(anchors)
    return drawn.take(np.stack([anchors, found], 1).ravel())


def shoot(people: People, *, protocol: Protocol, seed: int) -> tuple[People, Shots]:
    """All pictures of each person, side by side of the protocol: the people repeated, and their shots."""
    key = int(sha256_json([protocol.name, protocol.version, int(seed)])[:8], 16)
    values, keys = [], []
    for index in range(len(people)):
        person = people.take([index])
        age = keyed_generator("population", "protocol-age", key, person.ids[0]).uniform(*protocol.age)
        number = 0
        for side in protocol.sides:
            for _ in range(side.pictures):
                shot = _shot(person, side, key, number, age)
                values.append(shot.values)
                keys += shot.keys
                number += 1
    return people.take(np.repeat(np.arange(len(people)), protocol.pictures)), Shots(np.concatenate(values), tuple(keys))


def _shot(person: People, side: Side, key: int, number: int, age: float) -> Shots:
    draw = keyed_generator("population", "protocol-years", key, person.ids[0], number)
    years = draw.uniform(*side.years)
    turn = int(keyed_generator("population", "protocol-choice", key, person.ids[0]).integers(len(side.choices)))
    choice = side.choices[(turn + number) % len(side.choices)]
    _, shot = sample_shots(person, 1, seed=key, start=number, spreads={**side.spreads, **choice})
    values = shot.values.copy()
    values[:, NUISANCE_NAMES.index("age")] = age + years
    return Shots(values, shot.keys)


def pair_up(protocol: Protocol, *, seed: int) -> Pairs:
    """The protocol's pairs. In a fold every person has as many genuine pairs as any other, and every couple as many
    impostor pairs, give or take one."""
    people, wanted = protocol.people // protocol.folds, protocol.pairs // (2 * protocol.folds)
    rows: list[tuple[int, int, int, int]] = []
    for fold in range(protocol.folds):
        draw = keyed_generator("population", "protocol-pairs", protocol.name, protocol.version, int(seed), fold)
        first = fold * people
        rows += [(first + p, i, first + p, j) for p, i, j in islice(_genuine(protocol, people, draw), wanted)]
        rows += [(first + p, i, first + q, j) for p, i, q, j in islice(_impostors(protocol, people, draw), wanted)]
    table = np.array(rows, np.int64)
    same = np.tile(np.repeat([True, False], wanted), protocol.folds)
    return Pairs(table[:, :2], table[:, 2:], same)


def _genuine(protocol: Protocol, people: int, draw: np.random.Generator) -> Iterator[tuple[int, int, int]]:
    """One pair of every person, then another of every person, ..."""
    own = list(combinations(range(protocol.pictures), 2)) if protocol.second is None else _across(protocol)
    orders = [draw.permutation(len(own)) for _ in range(people)]
    return ((person, *own[orders[person][turn]]) for turn in range(len(own)) for person in range(people))


def _across(protocol: Protocol) -> list[tuple[int, int]]:
    """Pictures of the first side with those of the second; of one person or of two."""
    first = protocol.first.pictures
    second = range(first) if protocol.second is None else range(first, protocol.pictures)
    return list(product(range(first), second))


def _impostors(protocol: Protocol, people: int, draw: np.random.Generator) -> Iterator[tuple[int, int, int, int]]:
    """One pair of every couple, then another of every couple, ..."""
    couples = _partners(people) if protocol.impostors == "look-alikes" else _ring(people, draw)
    pictures = _across(protocol)
    orders = [draw.permutation(len(pictures)) for _ in couples]
    for turn in range(len(pictures)):
        for (p, q), order in zip(couples, orders):
            i, j = pictures[order[turn]]
            yield p, i, q, j


def _partners(people: int) -> list[tuple[int, int]]:
    """Neighbours in the cast, each in turn the first of the pair: half of the couples are turned round."""
    return [(p, p + 1) if p % 4 else (p + 1, p) for p in range(0, people, 2)]


def _ring(people: int, draw: np.random.Generator) -> list[tuple[int, int]]:
    """All couples, so that after any whole number of rounds everybody has been in as many: people stand in a ring, and
    each meets the next, then the one after the next, ..."""
    ring = draw.permutation(people)
    couples = [(int(ring[p]), int(ring[(p + step) % people])) for step in range(1, people // 2 + 1)
               for p in range(people)]
    return couples[:people * (people - 1) // 2]

"""Verification protocols of procedural people, as data: who is photographed how, and which pictures become pairs.

A protocol with another number is another protocol: change anything here that changes a pair, and raise its version.
After the versioned tasks of lm-evaluation-harness; folds and counts after LFW view 2 (UMass TR 07-49) and CFP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..foundation.errors import InputError, UnknownNameError
from ..foundation.registry import register

FIRST_PERSON = 900_000
"""Where protocol people begin unless told otherwise: populations for training count from 0."""


@dataclass(frozen=True)
class Side:
    """One of the two conditions a person is photographed in.

    Attributes:
        pictures: how many of each person.
        spreads: distributions of nuisances (``Nuisance.spread``) over the protocol's own.
        choices: further spreads of which a picture has one, in turn over people and pictures.
        years: least and greatest number of years, evenly spread, added to the person's age.
    """

    pictures: int
    spreads: Mapping[str, tuple] = field(default_factory=dict)
    choices: tuple[Mapping[str, tuple], ...] = ({},)
    years: tuple[float, float] = (-2, 2)


@dataclass(frozen=True)
class Protocol:
    """One versioned verification protocol.

    Attributes:
        name, version, summary, about: what it is called, one line, and its own README text.
        first, second: the conditions of the two pictures of a pair; without ``second`` both are of ``first``.
        age: years from which each person's age is drawn evenly.
        impostors: ``random`` people of the fold, or its ``look-alikes`` (each person with the nearest of the pool).
        people, pairs, folds: half of the pairs are genuine; people and pairs are cut evenly into folds, no person in
            two.
        pool: how many people look-alikes are looked for among.
    """

    name: str
    version: int
    summary: str
    about: str
    first: Side
    second: Side | None = None
    age: tuple[float, float] = (20, 60)
    impostors: str = "random"
    people: int = 500
    pairs: int = 6000
    folds: int = 10
    pool: int = 0

    @property
    def title(self) -> str:
        """``name/version``, as results are labelled; ``altered`` where counts are not the published ones."""
        return f"{self.name}/{self.version}" + ("" if self == PROTOCOLS.get(self.name) else " (altered)")

    @property
    def sides(self) -> tuple[Side, ...]:
        """The one or two conditions."""
        return (self.first,) if self.second is None else (self.first, self.second)

    @property
    def pictures(self) -> int:
        """Pictures of each person."""
        return sum(side.pictures for side in self.sides)

    @property
    def reserved(self) -> int:
        """How many people, from the first, belong to the protocol and must be in no training set."""
        return self.people + self.pool

    def genuine_of_a_person(self) -> int:
        """How many genuine pairs one person's pictures give."""
        first = self.first.pictures
        return first * (first - 1) // 2 if self.second is None else first * self.second.pictures

    def impostors_of_a_couple(self) -> int:
        """How many impostor pairs the pictures of two people give."""
        return self.first.pictures * (self.second or self.first).pictures

    def couples_of_a_fold(self) -> int:
        """How many couples of people in a fold make impostor pairs."""
        people = self.people // self.folds
        return people // 2 if self.impostors == "look-alikes" else people * (people - 1) // 2

    def check(self) -> Protocol:
        """Itself, if it can be made; ``InputError`` says what there is too little of."""
        where = f"protocol {self.name}"
        if min(self.people, self.pairs, self.folds) < 1:
            raise InputError(f"{self.people} people, {self.pairs} pairs, {self.folds} folds", where=where,
                             fix="ask for at least one of each")
        if self.pairs % (2 * self.folds):
            raise InputError(f"{self.pairs} pairs cannot be cut into {self.folds} folds of as many genuine as impostor "
                             "pairs", where=where, fix=f"ask for a multiple of {2 * self.folds}")
        paired = 2 if self.impostors == "look-alikes" else 1
        if self.people % (self.folds * paired):
            raise InputError(f"{self.people} people cannot be cut evenly into {self.folds} folds", where=where,
                             fix=f"ask for a multiple of {self.folds * paired}")
        if self.impostors == "look-alikes" and self.pool < self.people // 2:
            raise InputError(f"a pool of {self.pool} has no look-alikes for {self.people // 2} people", where=where,
                             fix="ask for fewer people or a larger pool")
        wanted = self.pairs // (2 * self.folds)
        people = self.people // self.folds
        for kind, there in (("genuine", people * self.genuine_of_a_person()),
                            ("impostor", self.couples_of_a_fold() * self.impostors_of_a_couple())):
            if wanted > there:
                raise InputError(f"{wanted} {kind} pairs are wanted in each fold, and its {people} people with "
                                 f"{self.pictures} pictures each give {there}", where=where,
                                 fix="ask for fewer pairs or more people")
        return self

    def to_dict(self) -> dict[str, Any]:
        """JSON value of all that pictures and pairs follow from, but seed, start and size."""
        sides = [{"pictures": side.pictures, "years": list(side.years), "spreads": _lists(side.spreads),
                  "choices": [_lists(choice) for choice in side.choices]} for side in self.sides]
        return {"name": self.name, "version": self.version, "title": self.title, "sides": sides, "age": list(self.age),
                "impostors": self.impostors, "people": self.people, "pairs": self.pairs, "folds": self.folds,
                "pool": self.pool}


def _lists(spreads: Mapping[str, tuple]) -> dict[str, list]:
    return {name: list(spread) for name, spread in spreads.items()}


def protocol(name: str, **counts: int | None) -> Protocol:
    """The protocol of a name, checked; ``people`` and ``pairs`` may be others than published (``None``: as published).

    Raises ``UnknownNameError``, or ``InputError`` where that cannot be made.
    """
    if name not in PROTOCOLS:
        raise UnknownNameError("population protocol", name, PROTOCOLS)
    changes = {key: value for key, value in counts.items() if value is not None}
    return replace(PROTOCOLS[name], **changes).check()


# A passport booth with an ordinary camera: near frontal, lit from the front, nothing worn.
_BOOTH = {
    "yaw": ("normal", 0, 6), "pitch": ("normal", 0, 5), "roll": ("normal", 0, 4), "light_azimuth": ("normal", 0, 20),
    "light_elevation": ("normal", 35, 10), "light_share": ("uniform", 0.3, 0.6), "glasses": ("some", 0, 1, 3),
    "mask": ("some", 0, 1, 1), "hat": ("some", 0, 1, 2), "hand": ("some", 0, 1, 1)}
_HARD_LIGHT = {"light_share": ("uniform", 0.65, 0.85), "light_elevation": ("normal", 20, 15),
               "shadow_softness": ("uniform", 0, 0.4), "exposure": ("normal", 0, 0.4)}
_GLASSES, _HAT = ("uniform", 1, 3), ("uniform", 1, 2)

_KEPT = ("Expression, gaze, shave, background, distance, blur, sensor noise, an earlier compression and the error of "
         "alignment vary in every picture as in `negface population make`; a person's age varies by 2 years.")

FRONTAL = Protocol(
    "frontal", 1, "near-frontal pictures in even light, nothing worn; impostors at random",
    "Can two ordinary portraits of one person be told from portraits of two? Yaw deviates by 6 degrees, pitch by 5; "
    f"the key light comes from the front. {_KEPT} The easiest of the six: what fails here fails everywhere.",
    Side(4, _BOOTH))
CROSS_POSE = Protocol(
    "cross-pose", 1, "a frontal picture against one turned by 45 to 75 degrees",
    "Does the recogniser know a person from the side? One picture as in `frontal`, the other turned by 45 to 75 "
    f"degrees, left and right in turn. {_KEPT} Pictures are aligned by their true five points, as all of this "
    "package's; real detectors add their own error at such angles.",
    Side(3, _BOOTH),
    Side(3, _BOOTH, ({"yaw": ("uniform", 45, 75)}, {"yaw": ("uniform", -75, -45)})))
CROSS_AGE = Protocol(
    "cross-age", 1, "a picture at 18 to 30 years against one 30 to 45 years later",
    "Does the recogniser know a person decades later? Ages are known and not estimated: 18 to 30 on one picture, 30 "
    "to 45 years more on the other. Age greys the hair, wrinkles and loosens the skin; hairline and bones stay. All "
    "else is as in `frontal`.",
    Side(3, _BOOTH, years=(0, 0)), Side(3, _BOOTH, years=(30, 45)), age=(18, 30))
CROSS_LIGHT = Protocol(
    "cross-light", 1, "hard light from one side against hard light from the other",
    "Does the recogniser see the face or its shadows? The key light stands 50 to 85 degrees to the right on one "
    "picture and to the left on the other, gives two thirds of the light or more, with hard shadows, and is warm on "
    f"one side and cold on the other. {_KEPT}",
    Side(3, _BOOTH | _HARD_LIGHT | {"light_azimuth": ("uniform", 50, 85), "light_warmth": ("uniform", 0.2, 0.8)}),
    Side(3, _BOOTH | _HARD_LIGHT | {"light_azimuth": ("uniform", -85, -50),
                                    "light_warmth": ("uniform", -0.8, -0.2)}))
OCCLUDED = Protocol(
    "occluded", 1, "a free face against one with mask, hat and glasses, or hand and glasses",
    "What is left when part of the face is hidden? One picture as in `frontal`, the other with a mask, with a hat and "
    f"glasses, or with a hand before the chin and glasses, a third each. {_KEPT}",
    Side(3, _BOOTH),
    Side(3, _BOOTH, ({"mask": ("uniform", 1, 1)}, {"hat": _HAT, "glasses": _GLASSES},
                     {"hand": ("uniform", 1, 1), "glasses": _GLASSES})))
LOOK_ALIKE = Protocol(
    "look-alike", 1, "portraits as in frontal; impostors are each other's look-alikes",
    "Are people told apart by more than sex, skin and hair? Pictures as in `frontal`. Half of the people are drawn as "
    "they come; each gets as partner the nearest person, not yet taken, of a pool of 4,000 others. Near is the "
    "distance of traits, each weighed by how much of the neutral portrait it changes (`negface.population.likeness`). "
    "Impostor pairs are pictures of partners; genuine pairs are as in `frontal`, so what differs from it is the "
    "impostors.",
    Side(4, _BOOTH), impostors="look-alikes", pool=4000)

PROTOCOLS: dict[str, Protocol] = {item.name: item for item in (
    FRONTAL, CROSS_POSE, CROSS_AGE, CROSS_LIGHT, OCCLUDED, LOOK_ALIKE)}

for _item in PROTOCOLS.values():
    register("protocol", f"population-{_item.name}/{_item.version}",
             f"{__name__}:{_item.name.upper().replace('-', '_')}", _item.summary,
             paper="ours; folds after UMass TR 07-49 (LFW view 2)")

"""Who a procedural person is: named traits with stated distributions, each person drawn from its own key.

A person is one row of numbers that no picture changes: age, style and pose are shots, not traits. Most traits are in
standard deviations of the population; the scales in decimetres stand where a trait acts (``features``, ``surface``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..foundation.errors import InputError
from ..foundation.noise import keyed_generator

LIMIT = 2.5
"""Shape traits are normal, truncated to +-2.5 standard deviations."""

EXAGGERATION = 1.35
"""How many anthropometric deviations one deviation of a shape trait is: people differ a little more than in life, so
that they can be told apart on small pictures."""


@dataclass(frozen=True)
class Trait:
    """One degree of freedom.

    ``kind`` is ``normal`` (mean ``femininity_shift`` times +-1 by sex, deviation 1, clipped to +-2.5), ``uniform`` on
    0..1, or ``rare`` (a uniform number cubed: mostly small).
    """

    name: str
    meaning: str
    kind: str = "normal"
    femininity_shift: float = 0.0

    @property
    def low(self) -> float:
        """The smallest value allowed."""
        return -LIMIT if self.kind == "normal" else 0.0

    @property
    def high(self) -> float:
        """The largest value allowed."""
        return LIMIT if self.kind == "normal" else 1.0


def _n(name: str, meaning: str, shift: float = 0.0) -> Trait:
    return Trait(name, meaning, "normal", shift)


def _u(name: str, meaning: str) -> Trait:
    return Trait(name, meaning, "uniform")


def _r(name: str, meaning: str) -> Trait:
    return Trait(name, meaning, "rare")


TRAITS: tuple[Trait, ...] = (
    # Two humps: half of the people lie near 0, half near 1. Shifts below follow this number.
    Trait("femininity", "sex-correlated appearance, 0 masculine to 1 feminine", "two-humped"),
    _n("head_width", "breadth of the skull", -0.3), _n("head_length", "front to back", -0.3),
    _n("head_height", "height of the vault"), _n("forehead_slope", "+ slopes back", -0.5),
    _n("forehead_width", "breadth at the temples"), _n("temple_depth", "+ hollow"),
    _n("face_width", "breadth at the cheekbones", -0.2), _n("jaw_width", "breadth at the jaw angle", -0.5),
    _n("jaw_height", "+ square: the angle of the jaw lies low", -0.5), _n("adiposity", "fullness of the lower face"),
    _n("chin_length", "below the lips", -0.4), _n("chin_width", "breadth of the chin", -0.5),
    _n("chin_projection", "+ forward", -0.3), _n("chin_cleft", "+ cleft", -0.3),
    _n("cheekbone_height", "+ high", 0.2), _n("cheekbone_projection", "+ prominent", 0.2),
    _n("cheek_fullness", "below the cheekbone", 0.3), _n("neck_width", "breadth of the neck", -0.7),
    _n("eye_distance", "between the pupils"), _n("eye_size", "width of the opening", 0.3),
    _n("eye_opening", "height of the opening", 0.3), _n("eye_tilt", "+ outer corner high", 0.2),
    _n("eye_depth", "+ deep set", -0.3), _n("eye_height", "+ high in the face"), _n("lid_fold", "+ visible crease"),
    _n("brow_ridge", "+ prominent", -0.7), _n("brow_height", "above the eye", 0.5),
    _n("brow_thickness", "height of the brow", -0.6), _n("brow_length", "along the ridge"),
    _n("brow_arch", "+ arched", 0.5), _n("brow_tilt", "+ outer end high"), _n("brow_density", "+ dense", -0.3),
    _n("nose_length", "nasion to tip", -0.2), _n("nose_width", "between the wings", -0.3),
    _n("nose_projection", "of the tip", -0.2), _n("bridge_width", "breadth of the bridge", -0.2),
    _n("bridge_height", "projection of the bridge", -0.2), _n("nose_bump", "+ convex profile", -0.3),
    _n("tip_size", "roundness of the tip"), _n("tip_up", "+ upturned", 0.3),
    _n("mouth_height", "+ high"), _n("mouth_width", "between the corners", -0.1), _n("upper_lip", "fullness", 0.3),
    _n("lower_lip", "fullness", 0.3), _n("cupid_bow", "+ marked", 0.2), _n("mouth_curve", "+ corners up at rest"),
    _n("lip_projection", "+ forward"), _n("philtrum", "+ deep"),
    _n("ear_size", "height of the ear", -0.2), _n("ear_projection", "+ stands out"), _n("ear_height", "+ high"),
    _n("ear_lobe", "+ long lobe"),
    _n("asymmetry_jaw", "sideways shift of the chin"), _n("asymmetry_nose", "sideways shift of the tip"),
    _n("asymmetry_eyes", "one eye higher"), _n("asymmetry_mouth", "one corner higher"),
    _u("skin_tone", "0 lightest to 1 darkest, even over the ten Monk tones"), _n("undertone", "+ warm, - cool"),
    _n("ruddiness", "redness of cheeks and nose"), _r("freckles", "density"), _n("complexion", "+ blotchy"),
    _n("lip_colour", "+ dark red", 0.3),
    _u("mole_1_x", "place of the largest mole, left to right"), _u("mole_1_y", "chin to brow"),
    _r("mole_1_size", "0 none"), _u("mole_2_x", "place of another mole"), _u("mole_2_y", "chin to brow"),
    _r("mole_2_size", "0 none"), _u("mole_3_x", "place of another mole"), _u("mole_3_y", "chin to brow"),
    _r("mole_3_size", "0 none"), _u("skin_pattern", "which part of the texture a person wears"),
    _u("iris_melanin", "0 blue, 0.4 green, 1 dark brown (pulled up by dark skin)"), _n("iris_size", "diameter"),
    _u("hair_melanin", "0 blond to 1 black (pulled up by dark skin)"), _r("hair_red", "red pigment"),
    _n("hairline", "+ high", -0.2), _n("hairline_recession", "+ receding temples", -0.8),
    _n("widows_peak", "+ pointed at the middle"), _n("hair_volume", "thickness of the hair", 0.3),
    _u("hair_length", "0 shaved, 0.4 short, 1 on the shoulders (longer with femininity)"),
    _n("hair_part", "where the hair is parted"), _n("fringe", "+ hair falls on the forehead", 0.4),
    _u("hair_wave", "0 straight, 1 curly"), _u("beard", "density of the beard (none with femininity)"),
    _u("moustache", "density of the moustache (none with femininity)"),
)
TRAIT_NAMES = tuple(trait.name for trait in TRAITS)
GAINS = np.array([EXAGGERATION if trait.kind == "normal" else 1.0 for trait in TRAITS], np.float32)


@dataclass(frozen=True)
class People:
    """Procedural people: ``values`` float32 ``[n, len(TRAITS)]`` in the order of ``TRAITS``, and their ``ids``."""

    values: np.ndarray
    ids: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", check_values(self.values, TRAITS, "people"))
        if len(self.ids) != len(self.values):
            raise InputError(f"{len(self.values)} people have {len(self.ids)} ids", where="people")

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, indices: Iterable[int]) -> People:
        """The people of some indices, in that order (repeats allowed)."""
        indices = list(indices)
        return People(self.values[indices], tuple(self.ids[i] for i in indices))

    def trait(self, name: str) -> np.ndarray:
        """One trait of everybody, float32 ``[n]``."""
        return self.values[:, TRAIT_NAMES.index(name)]


def check_values(values: np.ndarray, table: tuple, where: str) -> np.ndarray:
    """float32 ``[n, len(table)]`` within each row's range; ``InputError`` names the first value that is not."""
    values = np.ascontiguousarray(values, np.float32)
    if values.ndim != 2 or values.shape[1] != len(table):
        raise InputError(f"expected numbers [n, {len(table)}], got {list(values.shape)}", where=where)
    if not len(values):
        raise InputError("there is nobody: 0 rows", where=where, fix="ask for at least one")
    low, high = (np.array([getattr(item, side) for item in table], np.float32) for side in ("low", "high"))
    wrong = np.argwhere(~((values >= low - 1e-4) & (values <= high + 1e-4)))
    if len(wrong):
        row, column = wrong[0]
        item = table[column]
        raise InputError(f"{item.name} is {values[row, column]:g}", where=f"{where} row {row}",
                         fix=f"it must lie in {item.low:g}..{item.high:g}")
    return np.clip(values, low, high)


def _draw(trait: Trait, draw: np.random.Generator, femininity: float) -> float:
    number = draw.standard_normal()
    uniform = draw.random()
    if trait.kind == "two-humped":
        return float(np.clip((0.15 if uniform < 0.5 else 0.85) + 0.11 * number, 0, 1))
    if trait.kind == "normal":
        shift = trait.femininity_shift * (2 * femininity - 1)
        return float(np.clip(shift + number, trait.low, trait.high))
    return uniform**3 if trait.kind == "rare" else uniform


def _person(seed: int, number: int) -> list[float]:
    draw = keyed_generator("population", "person", int(seed), int(number))
    row = [_draw(TRAITS[0], draw, 0.5)]
    row += [_draw(trait, draw, row[0]) for trait in TRAITS[1:]]
    return row


def sample_people(n: int, *, seed: int = 0, start: int = 0) -> People:
    """Draw ``n`` people; person ``i`` of a seed does not depend on how many are asked for.

    Args:
        n: how many, at least 1 (``InputError`` otherwise).
        seed: the population.
        start: number of the first person; disjoint ranges are disjoint people.
    """
    if n < 1:
        raise InputError(f"{n} people were asked for", where="population", fix="ask for at least one")
    numbers = range(start, start + n)
    return People(np.array([_person(seed, number) for number in numbers], np.float32),
                  tuple(f"s{seed}-p{number:06d}" for number in numbers))

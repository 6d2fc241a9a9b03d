"""Likeness of procedural people: distance of their traits, each weighed by how much of a portrait it changes.

``WEIGHTS`` were measured once (``benchmarks/population_likeness.py``) and stand as data, since a ranking must not
change with the machine that computes it.
"""

from __future__ import annotations

import numpy as np

from ..foundation.errors import InputError
from .traits import People

WEIGHTS: dict[str, float] = {
    "skin_tone": 32.1, "hair_length": 19.82, "femininity": 15.98, "eye_height": 5.22, "mouth_height": 5.19,
    "hair_volume": 4.18, "hair_melanin": 4.1, "head_width": 3.86, "nose_length": 3.86, "eye_distance": 3.46,
    "beard": 3.08, "mouth_curve": 3.07, "hair_wave": 3.01, "mouth_width": 2.49, "forehead_width": 2.36,
    "head_height": 2.01, "adiposity": 2, "face_width": 1.99, "skin_pattern": 1.95, "asymmetry_mouth": 1.62,
    "asymmetry_nose": 1.55, "asymmetry_eyes": 1.49, "asymmetry_jaw": 1.46, "hairline": 1.42, "eye_depth": 1.34,
    "jaw_width": 1.12, "fringe": 0.98, "ear_projection": 0.93, "eye_size": 0.66, "cheekbone_height": 0.62,
    "ear_height": 0.59, "ear_size": 0.46, "jaw_height": 0.45, "undertone": 0.44, "forehead_slope": 0.41,
    "cheek_fullness": 0.39, "lip_projection": 0.39, "hairline_recession": 0.39, "cheekbone_projection": 0.37,
    "brow_height": 0.37, "eye_tilt": 0.36, "ruddiness": 0.36, "brow_ridge": 0.35, "freckles": 0.35, "neck_width": 0.32,
    "hair_red": 0.29, "temple_depth": 0.26, "widows_peak": 0.26, "complexion": 0.23, "chin_length": 0.21,
    "eye_opening": 0.2, "brow_arch": 0.2, "nose_projection": 0.18, "lower_lip": 0.15, "brow_thickness": 0.13,
    "tip_size": 0.13, "nose_width": 0.12, "ear_lobe": 0.12, "bridge_width": 0.11, "hair_part": 0.11, "upper_lip": 0.1,
    "iris_melanin": 0.1, "brow_tilt": 0.09, "chin_projection": 0.08, "brow_density": 0.08, "tip_up": 0.08,
    "nose_bump": 0.07, "mole_3_x": 0.07, "moustache": 0.07, "chin_width": 0.06, "brow_length": 0.06,
    "bridge_height": 0.06, "mole_2_y": 0.06, "mole_2_x": 0.05, "mole_3_y": 0.05, "mole_3_size": 0.05, "mole_1_x": 0.04,
    "mole_1_y": 0.04, "mole_2_size": 0.04, "lid_fold": 0.03, "iris_size": 0.03, "philtrum": 0.02, "lip_colour": 0.02,
    "mole_1_size": 0.02, "head_length": 0.01}
"""Change of a neutral portrait, its pixels and its edges alike, for one unit of a trait, relative to the mean over
traits of that of one deviation. Traits that are not named change less than a hundredth."""

SHOWN_BY = {**dict.fromkeys(("beard", "moustache"), "femininity"),
            **dict.fromkeys(("hair_melanin", "hair_red", "iris_melanin", "freckles"), "skin_tone")}
"""Traits that show the less, the more there is of another."""


def _seen(people: People) -> np.ndarray:
    """What shows of everybody's traits, weighed, float64 ``[n, traits named]``."""
    return np.stack([people.trait(name).astype(np.float64) * weight
                     * (1 - people.trait(SHOWN_BY[name]) if name in SHOWN_BY else 1)
                     for name, weight in WEIGHTS.items()], 1)


def trait_distances(people: People, others: People) -> np.ndarray:
    """Weighted Euclidean distance of everybody's traits, float64 ``[len(people), len(others)]``."""
    a, b = _seen(people), _seen(others)
    squares = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T
    return np.sqrt(np.maximum(squares, 0))


def partners(people: People, pool: People) -> np.ndarray:
    """For each person in turn the nearest of the pool that nobody before has taken: places in the pool, int64.

    Raises ``InputError`` if the pool is smaller than the people.
    """
    if len(pool) < len(people):
        raise InputError(f"a pool of {len(pool)} has no partners for {len(people)} people", where="look-alikes")
    distances = trait_distances(people, pool)
    found = np.empty(len(people), np.int64)
    for place in range(len(people)):
        found[place] = distances[place].argmin()
        distances[:, found[place]] = np.inf
    return found

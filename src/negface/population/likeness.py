"""Likeness of procedural people: distance of their traits, each weighed by how much of a portrait it changes.

``WEIGHTS`` were measured once (``benchmarks/population_likeness.py``) and stand as data, since a ranking must not
change with the machine that computes it.
"""

from __future__ import annotations

import numpy as np

from ..foundation.errors import InputError
from .traits import People

WEIGHTS: dict[str, float] = {
    "hair_length": 18.4, "femininity": 14.24, "skin_tone": 9.72, "mouth_height": 5.86, "eye_height": 5.85,
    "nose_length": 4.53, "hair_volume": 4.42, "head_width": 4.41, "eye_distance": 4.1, "hair_wave": 3.85,
    "mouth_curve": 3.73, "mouth_width": 3.03, "forehead_width": 2.8, "face_width": 2.32, "head_height": 2.27,
    "beard": 2.23, "adiposity": 2.16, "asymmetry_mouth": 2.04, "asymmetry_nose": 1.93, "hair_melanin": 1.92,
    "asymmetry_eyes": 1.9, "skin_pattern": 1.9, "asymmetry_jaw": 1.81, "eye_depth": 1.6, "hairline": 1.4,
    "jaw_width": 1.2, "ear_projection": 1.03, "eye_size": 0.85, "cheekbone_height": 0.71, "ear_height": 0.71,
    "fringe": 0.7, "jaw_height": 0.57, "ear_size": 0.57, "eye_tilt": 0.47, "forehead_slope": 0.46, "brow_height": 0.44,
    "lip_projection": 0.41, "cheekbone_projection": 0.4, "freckles": 0.4, "cheek_fullness": 0.39,
    "hairline_recession": 0.39, "neck_width": 0.32, "brow_ridge": 0.32, "temple_depth": 0.3, "eye_opening": 0.26,
    "brow_arch": 0.25, "widows_peak": 0.23, "nose_projection": 0.21, "complexion": 0.2, "undertone": 0.19,
    "chin_length": 0.18, "ruddiness": 0.18, "hair_red": 0.17, "brow_thickness": 0.16, "ear_lobe": 0.16,
    "tip_size": 0.15, "lower_lip": 0.15, "nose_width": 0.14, "iris_melanin": 0.12, "brow_tilt": 0.11,
    "upper_lip": 0.11, "hair_part": 0.11, "bridge_width": 0.1, "tip_up": 0.09, "brow_length": 0.08,
    "brow_density": 0.08, "mole_2_y": 0.08, "moustache": 0.08, "chin_projection": 0.07, "nose_bump": 0.07,
    "mole_2_x": 0.07, "mole_3_x": 0.07, "mole_3_size": 0.07, "bridge_height": 0.06, "mole_2_size": 0.06,
    "mole_3_y": 0.06, "chin_width": 0.05, "iris_size": 0.05, "mole_1_x": 0.04, "mole_1_y": 0.04, "lid_fold": 0.03,
    "mole_1_size": 0.03, "head_length": 0.02, "philtrum": 0.02, "lip_colour": 0.01}
"""Change of a neutral portrait's edges for one unit of a trait, relative to the mean over traits of that of one
deviation. Traits that are not named change less than a hundredth."""

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

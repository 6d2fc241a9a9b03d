"""Truth in words and rows: attribute names, a caption, the JSON line of a picture, and the mirror of all of it.

Attributes are read off the numbers a picture was made from, not off the picture; thresholds stand here.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from . import hair
from .landmarks import MIRROR_5, MIRROR_68
from .rendering import Rendered
from .shots import NUISANCE_NAMES, Shots
from .traits import GAINS, TRAIT_NAMES, People
from .values import Columns

_MIRRORED_TRAITS = ("asymmetry_jaw", "asymmetry_nose", "asymmetry_eyes", "asymmetry_mouth", "hair_part")
_MIRRORED_NUISANCES = ("yaw", "roll", "gaze_x", "light_azimuth", "shift_x")


def _numbers(values: np.ndarray, names: tuple[str, ...], index: int) -> SimpleNamespace:
    return SimpleNamespace(**dict(zip(names, values[index].tolist())))


def monk_tone(people: People) -> np.ndarray:
    """Monk skin tone of everybody, int64 ``[n]``, 1 (lightest) to 10."""
    return np.minimum((people.trait("skin_tone") * 10).astype(np.int64), 9) + 1


def _hair_length(people: People, index: int) -> float:
    return float(hair.length(Columns(torch.from_numpy(people.values[index:index + 1] * GAINS), TRAIT_NAMES)))


def _hair_colour(p: SimpleNamespace, e: SimpleNamespace) -> str:
    grey = (e.age - 42 - 10 * (1 - p.femininity) + 14 * p.hair_red) / 38
    melanin = max(p.hair_melanin, 1.35 * p.skin_tone - 0.1)
    if grey > 0.5:
        return "grey"
    if p.hair_red > 0.5 and melanin < 0.55:
        return "red"
    return "black" if melanin > 0.75 else "brown" if melanin > 0.3 else "blond"


def attributes(people: People, shots: Shots, index: int) -> list[str]:
    """Names of what holds for picture ``index``, in alphabetical order."""
    p, e = _numbers(people.values, TRAIT_NAMES, index), _numbers(shots.values, NUISANCE_NAMES, index)
    long = _hair_length(people, index)
    grown = (1 - 0.75 * e.shave) * (p.femininity < 0.4)
    found = {
        "feminine": p.femininity > 0.5, "masculine": p.femininity <= 0.5, "young": e.age < 30, "old": e.age >= 60,
        "bald": long < 0.07, "short_hair": 0.07 <= long <= 0.55, "long_hair": long > 0.55,
        f"{_hair_colour(p, e)}_hair": long >= 0.07, "wavy_hair": p.hair_wave > 0.6 and long > 0.2,
        "fringe": p.fringe > 0.8 and long > 0.35, "beard": p.beard > 0.65 and grown > 0.4,
        "moustache": p.moustache > 0.6 and grown > 0.4, "freckles": p.freckles > 0.4,
        "thick_brows": p.brow_thickness > 1,
        "large_nose": p.nose_length + p.nose_projection + p.nose_width > 2, "full_lips": p.upper_lip + p.lower_lip > 2,
        "high_cheekbones": p.cheekbone_projection > 1, "glasses": e.glasses >= 0.5, "hat": e.hat > 0.5,
        "mask": e.mask > 0.5, "hand_before_face": e.hand > 0.5, "smiling": e.smile > 0.4,
        "frowning": e.brow_raise < -0.5,
        "mouth_open": e.mouth_open > 0.15 and e.mask <= 0.5, "eyes_closed": e.blink > 0.85,
        "turned_left": e.yaw > 20, "turned_right": e.yaw < -20, "looking_up": e.pitch > 12,
        "looking_down": e.pitch < -12,
    }
    return sorted(name for name, holds in found.items() if holds)


_WITH = (("fringe", "a fringe"), ("beard", "a beard"), ("moustache", "a moustache"), ("freckles", "freckles"),
         ("glasses", "glasses"), ("hat", "a hat"), ("mask", "a mask over mouth and nose"),
         ("hand_before_face", "a hand at the chin"))
_DOING = (("smiling", "smiling"), ("frowning", "frowning"), ("mouth_open", "mouth open"),
          ("eyes_closed", "eyes closed"),
          ("turned_left", "turned to the left"), ("turned_right", "turned to the right"), ("looking_up", "looking up"),
          ("looking_down", "looking down"))
_TONES = ("light", "light", "light", "medium", "medium", "medium", "brown", "brown", "dark", "dark")


def _hair_words(names: set[str]) -> str:
    if "bald" in names:
        return "no hair"
    colour = next(name for name in ("grey", "red", "black", "brown", "blond") if f"{name}_hair" in names)
    return f"{'long' if 'long_hair' in names else 'short'} {'wavy ' if 'wavy_hair' in names else ''}{colour} hair"


def caption(people: People, shots: Shots, index: int) -> str:
    """One English sentence on picture ``index``, made of its attributes, age, tone and light."""
    names = set(attributes(people, shots, index))
    e = _numbers(shots.values, NUISANCE_NAMES, index)
    sex = "feminine" if "feminine" in names else "masculine"
    wears = [_hair_words(names), *(text for name, text in _WITH if name in names)]
    does = [text for name, text in _DOING if name in names]
    side = "right" if e.light_azimuth > 25 else "left" if e.light_azimuth < -25 else "front"
    tone = _TONES[int(monk_tone(people)[index]) - 1]
    return (f"A {sex} face of about {round(e.age / 5) * 5} years with {tone} skin, {', '.join(wears)}"
            f"{'; ' + ', '.join(does) if does else ''}; lit from the {side}.")


def _rounded(values: np.ndarray, digits: int = 3) -> list:
    return np.round(values.astype(np.float64), digits).tolist()


def row(people: People, shots: Shots, rendered: Rendered, index: int) -> dict[str, Any]:
    """All truth of picture ``index`` but its parsing map, as JSON values; see ``Rendered`` for the coordinates."""
    return {
        "identity": people.ids[index], "key": shots.keys[index],
        "traits": dict(zip(TRAIT_NAMES, _rounded(people.values[index], 6))),
        "nuisances": dict(zip(NUISANCE_NAMES, _rounded(shots.values[index], 6))),
        "points5": _rounded(rendered.points5[index]), "points68": _rounded(rendered.points68[index]),
        "visible68": rendered.visible68[index].astype(int).tolist(), "box": _rounded(rendered.boxes[index]),
        "pose": dict(zip(("yaw", "pitch", "roll"), _rounded(rendered.pose[index]))),
        "monk_tone": int(monk_tone(people)[index]), "attributes": attributes(people, shots, index),
        "caption": caption(people, shots, index)}


def mirror(rendered: Rendered) -> Rendered:
    """Pictures and labels as a mirror shows them: left and right landmarks change names, yaw and roll their sign."""
    width = rendered.images.shape[2]

    def points(values: np.ndarray, order: np.ndarray) -> np.ndarray:
        return np.stack([width - 1 - values[:, order, 0], values[:, order, 1]], -1)

    left, top, wide, high = rendered.boxes.T
    return Rendered(np.ascontiguousarray(rendered.images[:, :, ::-1]), points(rendered.points5, MIRROR_5),
                    points(rendered.points68, MIRROR_68), rendered.visible68[:, MIRROR_68],
                    np.ascontiguousarray(rendered.parsing[:, :, ::-1]),
                    np.stack([width - 1 - left - wide, top, wide, high], 1),
                    rendered.pose * np.array([-1, 1, -1], np.float32))


def mirror_parameters(people: People, shots: Shots) -> tuple[People, Shots]:
    """The mirrored people and shots: what would be photographed in a mirror (skin texture, hand and noise aside)."""
    values, numbers = people.values.copy(), shots.values.copy()
    for name in _MIRRORED_TRAITS:
        values[:, TRAIT_NAMES.index(name)] *= -1
    for mole in "123":
        column = TRAIT_NAMES.index(f"mole_{mole}_x")
        values[:, column] = 1 - values[:, column]
    for name in _MIRRORED_NUISANCES:
        numbers[:, NUISANCE_NAMES.index(name)] *= -1
    return People(values, people.ids), Shots(numbers, shots.keys)


__all__ = ["attributes", "caption", "mirror", "mirror_parameters", "monk_tone", "row"]

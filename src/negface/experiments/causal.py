"""The causal bias experiment on procedural people: change one attribute, keep everything else, ask a recogniser.

Liang, Perona, Balakrishnan (arXiv 2308.05441) with a renderer in place of a generator and truth in place of raters. The
statistics are those of ``evaluation.causal``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from negface.evaluation.causal import causal_effects
from negface.foundation.errors import InputError, UnknownNameError
from negface.foundation.progress import Progress
from negface.population import NUISANCE_NAMES, NUISANCES, TRAIT_NAMES, TRAITS, People, Shots, render, sample_people
from negface.population import sample_shots as photographs
from negface.population.skin import skin_colour
from negface.population.traits import GAINS
from negface.population.values import Columns

BATCH = 64
_METER = 0.30
"""The renderer's camera multiplies light by (luminance of the skin) ** -0.30 (``population.photo.develop``)."""


class Embedder(Protocol):
    """What is asked: ``embed(uint8 [n, S, S, 3], resize=True) -> float32 [n, d]``; a ``Recognizer`` is one."""

    def embed(self, images: np.ndarray, *, resize: bool = False) -> np.ndarray: ...


def changed(people: People, shots: Shots, attribute: str, level: float, *, total: bool = False) -> tuple[People, Shots]:
    """The same people and shots with ``attribute`` set to ``level`` for all; keys, and so noise and background, stay.

    Args:
        attribute: a trait (``skin_tone``, ``femininity``, ...) or a nuisance (``age``, ``glasses``, ...).
        total: let what follows the attribute follow: of ``femininity`` the traits that depend on it in the population
            (each keeps its own deviation from what femininity predicts), of the skin's colour the camera's meter. Else
            the attribute alone changes, and exposure is set so that the rest of the picture is as bright as before.
            Hair and irises of dark skin are dark either way: that is the renderer's rule of what a person looks like.

    Raises ``UnknownNameError``, or ``InputError`` for a level out of range.
    """
    if attribute in NUISANCE_NAMES:
        values = shots.values.copy()
        values[:, NUISANCE_NAMES.index(attribute)] = _allowed(NUISANCES[NUISANCE_NAMES.index(attribute)], level)
        return people, Shots(values, shots.keys)
    if attribute not in TRAIT_NAMES:
        raise UnknownNameError("attribute", attribute, (*TRAIT_NAMES, *NUISANCE_NAMES))
    at = TRAIT_NAMES.index(attribute)
    values = people.values.copy()
    if total and attribute == "femininity":
        for column, trait in enumerate(TRAITS):
            if trait.femininity_shift:
                moved = values[:, column] + 2 * trait.femininity_shift * (level - values[:, at])
                values[:, column] = np.clip(moved, trait.low, trait.high)
    values[:, at] = _allowed(TRAITS[at], level)
    after = People(values, people.ids)
    return after, shots if total else _same_gain(people, after, shots)


def _same_gain(before: People, after: People, shots: Shots) -> Shots:
    """Shots whose exposure (stops) undoes what the meter does when the skin's luminance changes."""
    at = NUISANCE_NAMES.index("exposure")
    values = shots.values.copy()
    stops = values[:, at] + _METER * np.log2(_luminance(after) / _luminance(before))
    values[:, at] = np.clip(stops, NUISANCES[at].low, NUISANCES[at].high)
    return Shots(values, shots.keys)


def _luminance(people: People) -> np.ndarray:
    colour = skin_colour(Columns(torch.from_numpy(people.values * GAINS), TRAIT_NAMES)).numpy()
    return (colour @ np.array([0.2126, 0.7152, 0.0722], np.float32)).clip(min=0.01)


def _allowed(item: Any, level: float) -> float:
    if not item.low <= level <= item.high:
        raise InputError(f"{item.name} cannot be {level:g}", where="levels",
                         fix=f"it must lie in {item.low:g}..{item.high:g}")
    return level


def causal(recognizer: Embedder, attribute: str, levels: Sequence[float], *, people: int = 100, images: int = 4,
           size: int = 112, seed: int = 0, start: int = 0, total: bool = False, fmr: float = 0.01,
           bootstrap: int = 2000) -> dict[str, Any]:
    """Render people at every level of an attribute, embed, and measure its effect.

    Args:
        recognizer: who is asked. Pictures are resized to what it takes.
        levels: two or more values; effects are against the first.
        people, images: how many people, and shots of each, the same at every level.
        total: as in ``changed``.
        seed, start: the population and its first person: choose people that the recogniser was not trained on.

    Returns the value of ``causal_effects`` with ``attribute``, ``total`` and the population.
    """
    if len(levels) < 2:
        raise InputError(f"{len(levels)} levels", where="levels", fix="give two or more")
    if people < 2 or images < 2:
        raise InputError(f"{people} people with {images} pictures each", where="causal", fix="give two or more of both")
    repeated, shots = photographs(sample_people(people, seed=seed, start=start), images, seed=seed)
    settings = [changed(repeated, shots, attribute, level, total=total) for level in levels]
    found = []
    with Progress("rendering and embedding", len(levels) * len(shots), unit="images") as bar:
        for who, how in settings:
            parts = []
            for first in range(0, len(how), BATCH):
                rows = range(first, min(first + BATCH, len(how)))
                pictures = render(who.take(rows), how.take(rows), size).images
                parts.append(recognizer.embed(pictures, resize=True))
                bar.advance(len(rows))
            found.append(np.concatenate(parts).reshape(people, images, -1))
    result = causal_effects(np.stack(found), levels, fmr=fmr, bootstrap=bootstrap, seed=seed)
    return {"attribute": attribute, "total": total, "size": size, "population_seed": seed, "first_person": start,
            **result}

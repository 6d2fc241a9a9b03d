"""Drawn stand-ins for faces: ellipses with parameters of a person and of a picture. For the demo and for tests.

A placeholder until the population room renders people; nothing measured on these says anything about photographs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from negface.foundation.files import ensure_folder
from negface.foundation.noise import keyed_generator

OVERSAMPLED = 2


@dataclass(frozen=True)
class Person:
    """What stays the same in all pictures of a person; lengths in units of the picture's side, colours 0..255."""

    skin: np.ndarray
    hair: np.ndarray
    iris: np.ndarray
    lips: np.ndarray
    width: float
    height: float
    eye_distance: float
    eye_size: float
    brow_height: float
    nose_length: float
    mouth_width: float
    mouth_height: float
    hairline: float


def person(seed: int, number: int) -> Person:
    """Person ``number`` of the population ``seed``; does not depend on the others."""
    draw = keyed_generator("drawn person", seed, number)
    tone = draw.uniform(0.25, 1.0)
    skin = np.array([250, 205, 175]) * tone + draw.uniform(-18, 18, 3)
    return Person(
        skin=np.clip(skin, 20, 255), hair=draw.uniform(10, 200, 3) * np.array([1.0, 0.8, 0.6]),
        iris=draw.uniform(20, 160, 3), lips=np.array([200, 80, 85]) * draw.uniform(0.5, 1.1),
        width=draw.uniform(0.25, 0.36), height=draw.uniform(0.34, 0.43), eye_distance=draw.uniform(0.09, 0.17),
        eye_size=draw.uniform(0.022, 0.05), brow_height=draw.uniform(0.05, 0.11), nose_length=draw.uniform(0.06, 0.16),
        mouth_width=draw.uniform(0.06, 0.15), mouth_height=draw.uniform(0.17, 0.26), hairline=draw.uniform(-0.06, 0.05))


def draw_face(seed: int, number: int, picture: int, size: int = 32) -> np.ndarray:
    """A picture of a person, uint8 ``[size, size, 3]`` RGB; pose, light, mouth and ground are the picture's own."""
    who, shot = person(seed, number), keyed_generator("drawn picture", seed, number, picture)
    side = size * OVERSAMPLED
    y, x = (np.mgrid[0:side, 0:side] + 0.5) / side - 0.5
    turn, nod, smile = shot.uniform(-0.06, 0.06), shot.uniform(-0.04, 0.04), shot.uniform(0.008, 0.04)
    x, y = x - shot.uniform(-0.03, 0.03), y - shot.uniform(-0.03, 0.03)
    ground = shot.uniform(60, 200) + shot.uniform(-25, 25, 3)
    canvas = np.broadcast_to(ground, (side, side, 3)).copy()

    def ellipse(cx: float, cy: float, rx: float, ry: float, colour: np.ndarray) -> None:
        canvas[((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1] = colour

    ellipse(0, -0.06, who.width * 1.2, who.height * 1.05, who.hair)
    ellipse(turn * 0.3, 0.04, who.width, who.height, who.skin)
    ellipse(turn * 0.3, -0.34 + who.hairline + nod, who.width * 0.95, 0.14, who.hair)
    for sign in (-1, 1):
        eye = turn + sign * who.eye_distance, -0.04 + nod
        ellipse(*eye, who.eye_size * 1.7, who.eye_size, np.array([245, 245, 245]))
        ellipse(eye[0] + turn * 0.3, eye[1], who.eye_size * 0.8, who.eye_size * 0.8, who.iris)
        ellipse(eye[0], eye[1] - who.brow_height, who.eye_size * 1.9, 0.013, who.hair)
    ellipse(turn * 1.3, 0.02 + nod + who.nose_length / 2, 0.02, who.nose_length / 2, who.skin * 0.75)
    ellipse(turn, who.mouth_height + nod, who.mouth_width, smile, who.lips)
    light = 1 + shot.uniform(-0.35, 0.35) * x + shot.uniform(-0.12, 0.12)
    canvas = np.clip(canvas * light[..., None] + shot.normal(0, 4, canvas.shape), 0, 255)
    return canvas.reshape(size, OVERSAMPLED, size, OVERSAMPLED, 3).mean(axis=(1, 3)).astype(np.uint8)


def write_faces(root: Path, numbers: Iterable[int], pictures: int, *, seed: int, size: int = 32) -> None:
    """Identity folders ``p0000/00.png`` of drawn people."""
    for number in numbers:
        folder = ensure_folder(root / f"p{number:04d}")
        for picture in range(pictures):
            Image.fromarray(draw_face(seed, number, picture, size)).save(folder / f"{picture:02d}.png")

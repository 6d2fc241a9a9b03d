"""Drawn stand-ins for faces, for tests. No real face is in the repository."""

from __future__ import annotations

import numpy as np


def draw_face(identity: int, image: int = 0, size: int = 32) -> np.ndarray:
    """A drawn stand-in for a face: uint8 ``[size, size, 3]`` RGB, looks by ``identity``, pose by ``image``.

    No real face is in the repository; pictures in tests are made here.
    """
    person = np.random.Generator(np.random.Philox(identity))
    shot = np.random.Generator(np.random.Philox(10_000 * identity + image + 1))
    skin, hair, ground, eye = person.uniform((120, 70, 60), (250, 200, 180)), *person.uniform(20, 200, (3, 3))
    wide, tall, apart = person.uniform(0.24, 0.36), person.uniform(0.34, 0.44), person.uniform(0.10, 0.17)
    shift, light = shot.uniform(-0.05, 0.05, 2), shot.uniform(-35, 35)
    y, x = np.mgrid[0:size, 0:size] / (size - 1) - 0.5
    x, y = x - shift[0], y - shift[1]

    def ellipse(cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
        return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1

    picture = np.broadcast_to(ground, (size, size, 3)).copy()
    picture[ellipse(0, -0.08, wide * 1.2, tall * 1.05)] = hair
    picture[ellipse(0, 0.03, wide, tall)] = skin
    for side in (-1, 1):
        picture[ellipse(side * apart, -0.05, 0.045, 0.03)] = eye
    picture[ellipse(0, 0.22, person.uniform(0.06, 0.14), 0.025)] = (150, 60, 60)
    picture += (light * x * 2)[..., None]
    return np.clip(picture, 0, 255).astype(np.uint8)

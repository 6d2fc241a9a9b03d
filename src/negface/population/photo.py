"""What stands around and after the light: background, clothes, lens, sensor and an earlier compression.

Everything random here comes from the picture's own key.
"""

from __future__ import annotations

import io

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ..foundation.noise import keyed_generator, keyed_normal
from .shots import Shots
from .skin import linear


def wardrobe(shots: Shots) -> dict[str, torch.Tensor]:
    """Linear colours ``[n, 3]`` of ``clothes``, ``mask``, ``hat`` and ``frames``."""
    rows = []
    for key in shots.keys:
        draw = keyed_generator("population", "wardrobe", key)
        clothes, hat = draw.uniform(15, 225, (2, 3))
        pale = draw.uniform(150, 235) + draw.uniform(-40, 15, 3)
        frames = draw.uniform(8, 60) + draw.uniform(-8, 40, 3) * draw.random()
        rows.append(np.stack([0.6 * clothes + 0.4 * clothes.mean(), pale, 0.7 * hat + 0.3 * hat.mean(), frames]))
    table = linear(torch.tensor(np.array(rows), dtype=torch.float32).clamp(0, 255))
    return dict(zip(("clothes", "mask", "hat", "frames"), table.unbind(1)))


def _background(key: str, busy: float) -> np.ndarray:
    """Coarse colours, linear, float32 ``[3, 12, 12]``: two tones, a slope, and patches as it gets busier."""
    draw = keyed_generator("population", "background", key)
    tone = draw.uniform(20, 235) + draw.uniform(-45, 45, 3)
    other = draw.uniform(10, 245) + draw.uniform(-60, 60, 3)
    slope = draw.uniform(-1, 1, 2)
    y, x = np.mgrid[0:12, 0:12] / 11 - 0.5
    share = np.clip(0.4 * busy + slope[0] * x + slope[1] * y, 0, 1)
    for _ in range(round(5 * busy)):
        cx, cy, wide, high = *draw.uniform(-0.5, 0.5, 2), *draw.uniform(0.08, 0.5, 2)
        patch = (np.abs(x - cx) < wide) & (np.abs(y - cy) < high)
        share = np.where(patch, draw.random(), share)
    noise = draw.standard_normal((3, 12, 12)) * 14 * busy
    colour = tone[:, None, None] + (other - tone)[:, None, None] * share + noise
    return (np.clip(colour, 0, 255) / 255).astype(np.float32) ** np.float32(2.2)


def backgrounds(shots: Shots, size: int) -> torch.Tensor:
    """Linear backgrounds ``[n, 3, size, size]``."""
    coarse = [_background(key, busy) for key, busy in zip(shots.keys, shots.nuisance("background"))]
    return F.interpolate(torch.tensor(np.array(coarse)), (size, size), mode="bilinear", align_corners=False)


def develop(light: torch.Tensor, skin: torch.Tensor, exposure: torch.Tensor, contrast: torch.Tensor) -> torch.Tensor:
    """Linear light ``[n, 3, h, w]`` to display values 0..1.

    The meter looks at the skin's colour ``skin`` ``[n, 3]`` and corrects part of the way, as cameras do; highlights
    roll off.
    """
    luminance = (0.2126 * skin[:, 0] + 0.7152 * skin[:, 1] + 0.0722 * skin[:, 2]).clamp(min=0.01)
    gain = 0.86 * luminance**-0.30 * 2 ** exposure[:, 0]
    shown = (1 - torch.exp(-1.15 * light.clamp(min=0) * gain[:, None, None, None])) ** (1 / 2.2)
    return ((shown - 0.5) * contrast[:, :, None, None] + 0.5).clamp(0, 1)


def _blur(picture: torch.Tensor, deviation: float) -> torch.Tensor:
    """Gaussian blur of one ``[3, h, w]`` picture, edges repeated."""
    reach = max(1, int(3 * deviation + 0.5))
    at = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (at / deviation) ** 2)
    kernel = (kernel / kernel.sum()).tolist()
    for axis in (1, 2):
        pad = (0, 0, reach, reach) if axis == 1 else (reach, reach, 0, 0)
        wide = F.pad(picture[None], pad, mode="replicate")[0]
        length = picture.shape[axis]
        picture = sum(weight * wide.narrow(axis, i, length) for i, weight in enumerate(kernel))
    return picture


def expose(pictures: torch.Tensor, shots: Shots) -> np.ndarray:
    """Blur, sensor noise, eight bits and an earlier JPEG: display values ``[n, 3, h, w]`` to uint8 ``[n, h, w, 3]``."""
    done = []
    n, _, size, _ = pictures.shape
    for i in range(n):
        picture, blur = pictures[i], float(shots.nuisance("blur")[i]) * size / 112
        if blur > 0.05:
            picture = _blur(picture, blur)
        grey = picture.permute(1, 2, 0).numpy() * 255
        noise = float(shots.nuisance("noise")[i])
        if noise > 0:
            grey = grey + noise * keyed_normal((size, size, 3), "population", "sensor", shots.keys[i])
        eight = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
        quality = round(float(shots.nuisance("jpeg")[i]))
        done.append(eight if quality >= 100 else _compressed(eight, quality))
    return np.stack(done)


def _compressed(picture: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(io.BytesIO(buffer.getvalue())).convert("RGB"))

"""Pictures at the door of a perception model: uint8 RGB in, the declared float32 NCHW tensor out."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ..foundation.errors import InputError
from .declarations import Declaration


def check_images(images: np.ndarray) -> np.ndarray:
    """``images`` if they are uint8 ``[n, H, W, 3]`` RGB; else ``InputError`` saying what they are."""
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise InputError(f"images are {images.dtype}, uint8 in 0..255 was expected", where="images",
                         fix="16-bit and float pictures must be converted first")
    if images.ndim != 4 or images.shape[-1] != 3:
        raise InputError(f"images have shape {list(images.shape)}, [n, H, W, 3] RGB was expected", where="images",
                         fix="repeat a grey channel three times; give a batch, not one picture")
    return images


def resize_images(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 ``[n, H, W, 3]`` to ``[n, h, w, 3]``: Pillow bilinear, which widens its kernel when it shrinks."""
    if images.shape[1:3] == tuple(size):
        return images
    resized = [np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))
               for image in images]
    return np.stack(resized) if resized else np.zeros((0, *size, 3), np.uint8)


def fit_images(images: np.ndarray, declaration: Declaration, *, resize: bool) -> np.ndarray:
    """Images of the declared size; another size is an ``InputError`` unless ``resize`` was asked for."""
    images = check_images(images)
    if images.shape[1:3] == declaration.size:
        return images
    if not resize:
        raise InputError(f"images are {images.shape[1]}x{images.shape[2]}, {declaration.name} takes "
                         f"{declaration.size[0]}x{declaration.size[1]}", where="images",
                         fix="align them to its template, or ask for a resize (--resize)")
    return resize_images(images, declaration.size)


def normalise(images: np.ndarray, declaration: Declaration) -> np.ndarray:
    """uint8 ``[n, h, w, 3]`` RGB to float32 ``[n, 3, h, w]``: declared colour order, ``(x - mean) / std``."""
    ordered = images if declaration.channels == "RGB" else images[..., ::-1]
    tensor = ordered.transpose(0, 3, 1, 2).astype(np.float32, order="C")
    tensor -= np.asarray(declaration.mean, np.float32)[:, None, None]
    tensor /= np.asarray(declaration.std, np.float32)[:, None, None]
    return tensor

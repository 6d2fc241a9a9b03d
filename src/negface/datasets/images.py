"""Pictures at the door: any file a user may have becomes uint8 RGB, and every conversion is said.

Grey, 16-bit, palette, CMYK and transparent pictures are converted with a note; what is no picture, is truncated or
would not fit in memory is refused with the file's name. Pillow only, first frame only.
"""

from __future__ import annotations

import io
import os
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from negface.foundation.errors import FormatError, InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
MAX_PIXELS = 100_000_000
_NATURAL = {"RGB"}


def is_image_name(name: str | os.PathLike) -> bool:
    """Whether a file's name ends like a picture's (case does not matter)."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def load_rgb(source: str | os.PathLike | bytes, *, where: object = None, notes: Counter | None = None) -> np.ndarray:
    """Read one picture as uint8 RGB ``[H, W, 3]``.

    Args:
        source: a path, or the encoded bytes.
        where: the name used in errors when ``source`` is bytes.
        notes: counts what had to be converted, e.g. ``{"grey picture: the channel was repeated": 3}``.

    Raises:
        InputError: no such file. FormatError: not a picture, truncated, or more than 100 million pixels.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        handle, where = io.BytesIO(source), where if where is not None else "encoded picture"
    else:
        handle, where = Path(source), source if where is None else where
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(handle) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise FormatError(f"{picture.width}x{picture.height} pixels are too many", where=where,
                                      fix=f"the limit is {MAX_PIXELS:,} pixels; scale it down")
                picture.load()
                array, said = _to_rgb(picture)
    except FileNotFoundError as error:
        raise InputError("no such picture", where=where, fix="check the path") from error
    except UnidentifiedImageError as error:
        raise FormatError("not a picture", where=where, fix="remove it or replace it by a JPEG or PNG") from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise FormatError(f"not a complete picture ({error})", where=where, fix="copy it again or remove it") from error
    if notes is not None:
        notes.update(said)
    return array


def _to_rgb(picture: Image.Image) -> tuple[np.ndarray, list[str]]:
    said = []
    turned = ImageOps.exif_transpose(picture)
    if turned.size != picture.size or picture.getexif().get(0x0112, 1) != 1:
        said.append("turned upright as its EXIF orientation says")
    picture = turned
    if picture.mode.startswith(("I", "F")):
        return _deep_to_rgb(picture), [*said, "16-bit or floating picture: reduced to 8 bits, channel repeated"]
    if picture.mode in ("L", "1"):
        said.append("grey picture: the channel was repeated")
    elif picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        said.append("transparent picture: laid on black")
        rgba = picture.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(black, rgba)
    elif picture.mode not in _NATURAL:
        said.append(f"{picture.mode} picture: converted to RGB")
    return np.array(picture.convert("RGB"), dtype=np.uint8), said


def _deep_to_rgb(picture: Image.Image) -> np.ndarray:
    """16-bit counts divided by 257 and rounded; floats are read on 0..255 (or 0..1 when none exceeds 1)."""
    values = np.asarray(picture).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("holds NaN or infinite values")
    if picture.mode.startswith("F"):
        values = values * 255.0 if values.size and values.max() <= 1.0 else values
    else:
        values = values / 257.0
    grey = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def check_rgb(image: np.ndarray, where: object = "image") -> np.ndarray:
    """The array, if it is uint8 ``[H, W, 3]`` with H, W >= 1; else ``InputError``."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        got = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"expected uint8 [H, W, 3], got {got}", where=where)
    if 0 in image.shape:
        raise InputError("is empty", where=where)
    return image


def resize_rgb(image: np.ndarray, size: int) -> np.ndarray:
    """Resize uint8 ``[H, W, 3]`` to ``[size, size, 3]`` with Pillow's bicubic filter (area-aware when shrinking).

    Pillow computes it in fixed point, so the result is the same on every machine; the same size is returned untouched.
    """
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))

"""Image codecs: how a picture becomes bytes, with the version that did it, because another version writes other bytes.

A codec that is not installed is an error and never a silent fallback; the default is Pillow JPEG, quality 95, 4:4:4.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import PIL
from PIL import Image, features

from negface.foundation.errors import InputError, MismatchError, UnknownNameError

from .images import check_rgb, load_rgb

DEFAULT_CODEC = "jpeg"


@dataclass(frozen=True)
class Codec:
    """A named way to write pictures.

    ``encode`` takes uint8 RGB ``[H, W, 3]`` and gives the file's bytes; equal pixels give equal bytes under equal
    ``library`` versions. ``lossless`` says whether decoding gives the pixels back.
    """

    name: str
    suffix: str
    library: str
    parameters: Mapping[str, Any]
    lossless: bool
    _encode: Callable[[np.ndarray], bytes] = field(repr=False, compare=False)

    def encode(self, image: np.ndarray) -> bytes:
        """The file's bytes of a uint8 RGB ``[H, W, 3]`` picture."""
        return self._encode(check_rgb(image))

    def decode(self, data: bytes, *, where: object = None) -> np.ndarray:
        """uint8 RGB ``[H, W, 3]`` of the file's bytes (by Pillow, for every codec)."""
        return load_rgb(data, where=where)

    def to_dict(self) -> dict[str, Any]:
        """JSON value that names the codec, its parameters and the library's version."""
        return {"name": self.name, "suffix": self.suffix, "library": self.library, "parameters": dict(self.parameters)}


def _pillow_jpeg() -> Codec:
    parameters = {"quality": 95, "subsampling": "4:4:4"}

    def encode(image: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=95, subsampling=0)
        return buffer.getvalue()

    return Codec("jpeg", ".jpg", f"pillow {PIL.__version__}, libjpeg-turbo {features.version('libjpeg_turbo')}",
                 parameters, False, encode)


def _pillow_png() -> Codec:
    def encode(image: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG", compress_level=6)
        return buffer.getvalue()

    return Codec("png", ".png", f"pillow {PIL.__version__}, zlib {features.version('zlib')}", {"compress_level": 6},
                 True, encode)


def _simplejpeg() -> Codec:
    try:
        module = importlib.import_module("simplejpeg")
    except ImportError as error:
        raise InputError("the codec 'simplejpeg' needs the package simplejpeg, which is not installed",
                         fix="pip install 'negface[fast]', or use the codec 'jpeg'") from error

    def encode(image: np.ndarray) -> bytes:
        return module.encode_jpeg(np.ascontiguousarray(image), quality=95, colorspace="RGB", colorsubsampling="444",
                                  fastdct=False)

    return Codec("simplejpeg", ".jpg", f"simplejpeg {module.__version__}", {"quality": 95, "subsampling": "4:4:4"},
                 False, encode)


_CODECS: dict[str, Callable[[], Codec]] = {"jpeg": _pillow_jpeg, "png": _pillow_png, "simplejpeg": _simplejpeg}
CODEC_NAMES = tuple(_CODECS)


def codec(name: str = DEFAULT_CODEC) -> Codec:
    """The codec of a name: ``jpeg`` (default), ``png`` (lossless), ``simplejpeg`` (extra ``[fast]``)."""
    if name not in _CODECS:
        raise UnknownNameError("image codec", name, _CODECS)
    return _CODECS[name]()


def codec_from_dict(value: Mapping[str, Any]) -> Codec:
    """The codec a plan recorded; ``MismatchError`` if the installed library is not the recorded one."""
    found = codec(value.get("name", ""))
    if found.to_dict() != dict(value):
        raise MismatchError(f"the codec {found.name!r} is {found.library} {dict(found.parameters)} here, "
                            f"the plan recorded {value.get('library')} {value.get('parameters')}",
                            fix="install the recorded version, or generate into another folder")
    return found

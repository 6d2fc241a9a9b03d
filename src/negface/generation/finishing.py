"""From the model's picture to the written one: bring it to the template, to its size, to bytes.

``template`` trusts that the model draws faces where the ArcFace template has them and only resizes; ``detect`` finds
five points and warps, and may fail; ``none`` leaves the picture as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from negface.datasets import Codec, check_rgb, codec_from_dict, resize_rgb
from negface.foundation.errors import InputError
from negface.foundation.hashing import sha256_bytes

from .plan import Plan

Aligner = Callable[[np.ndarray], "np.ndarray | None"]


@dataclass(frozen=True)
class Finisher:
    """Turns a uint8 RGB ``[H, W, 3]`` picture into encoded bytes, or ``None`` where no face was found."""

    codec: Codec
    size: int | None
    aligner: Aligner | None = None

    def __call__(self, image: np.ndarray) -> bytes | None:
        image = check_rgb(image, "generated picture")
        if self.aligner is not None:
            aligned = self.aligner(image)
            if aligned is None:
                return None
            image = check_rgb(aligned, "aligned picture")
        return self.codec.encode(image if self.size is None else resize_rgb(image, self.size))


def finisher(plan: Plan, aligner: Aligner | None = None) -> Finisher:
    """The finisher of a plan; an aligner is required with ``detect`` and not used otherwise."""
    detect = plan.align["mode"] == "detect"
    if detect and aligner is None:
        raise InputError("detection was asked for and no detector was given", where="align",
                         fix="give --detector, or use --align template")
    return Finisher(codec_from_dict(plan.codec), plan.size, aligner if detect else None)


def yunet_aligner(detector: str, size: int) -> Aligner:
    """An aligner to the ArcFace template of ``size`` pixels, from a YuNet file."""
    from negface.curation.alignment import Aligner as TemplateAligner
    from negface.perception.faces import load_detector

    return TemplateAligner(load_detector(detector), size=size)


@dataclass(frozen=True)
class Made:
    """One finished picture: whose, which image index (the noise's), its bytes and their hash."""

    label: int
    image: int
    data: bytes

    @property
    def sha256(self) -> str:
        """Hash of the encoded bytes."""
        return sha256_bytes(self.data)

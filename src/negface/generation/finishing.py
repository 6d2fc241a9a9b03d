"""From the model's picture to the written one: bring it to the template, to its size, through the filters, to bytes.

``template`` trusts that the model draws faces where the ArcFace template has them and only resizes; ``detect`` finds
five points and warps, and may fail; ``none`` leaves the picture as it is. Filters see the pixels before they are
encoded, so there is one codec pass. ``Line`` does all of it beside the sampling.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from negface.curation import Rejection, Screen
from negface.datasets import Codec, check_rgb, codec_from_dict, resize_rgb
from negface.foundation.errors import InputError
from negface.foundation.hashing import sha256_bytes

from .plan import Plan

Aligner = Callable[[np.ndarray], "np.ndarray | None"]
Outcome = bytes | Rejection
Finish = Callable[[Sequence[np.ndarray], Sequence[str]], list[Outcome]]
T = TypeVar("T")
DEPTH, ENCODERS = 2, 4
NO_FACE = Rejection("align", None)


@dataclass(frozen=True)
class Finisher:
    """Turns uint8 RGB ``[H, W, 3]`` pictures into encoded bytes, or says why they are rejected."""

    codec: Codec
    size: int | None
    aligner: Aligner | None = None
    screen: Screen | None = None

    def start(self, encode: Callable[..., Any] = map) -> Finish:
        """``finish(pictures, identities) -> outcomes`` for one unit: filters remember nothing of others.

        Args:
            encode: a ``map``, for example that of a pool of threads.
        """
        screening = None if self.screen is None else self.screen.start()

        def finish(pictures: Sequence[np.ndarray], identities: Sequence[str]) -> list[Outcome]:
            ready = [self._sized(picture) for picture in pictures]
            outcomes: list[Any] = [NO_FACE if picture is None else None for picture in ready]
            rows = [row for row, picture in enumerate(ready) if picture is not None]
            if screening is not None and rows:
                fates = screening.judge([ready[row] for row in rows], [identities[row] for row in rows])
                for row, fate in zip(rows, fates, strict=True):
                    outcomes[row] = fate
            rows = [row for row, outcome in enumerate(outcomes) if outcome is None]
            for row, data in zip(rows, encode(self.codec.encode, [ready[row] for row in rows]), strict=True):
                outcomes[row] = data
            return outcomes

        return finish

    def _sized(self, image: np.ndarray) -> np.ndarray | None:
        image = check_rgb(image, "generated picture")
        if self.aligner is not None:
            aligned = self.aligner(image)
            if aligned is None:
                return None
            image = check_rgb(aligned, "aligned picture")
        return image if self.size is None else resize_rgb(image, self.size)


def finisher(plan: Plan, aligner: Aligner | None = None, screen: Screen | None = None) -> Finisher:
    """The finisher of a plan; an aligner is required with ``detect`` and not used otherwise."""
    detect = plan.align["mode"] == "detect"
    if detect and aligner is None:
        raise InputError("detection was asked for and no detector was given", where="align",
                         fix="give --detector, or use --align template")
    return Finisher(codec_from_dict(plan.codec), plan.size, aligner if detect else None, screen)


def yunet_aligner(detector: str, size: int) -> Aligner:
    """An aligner to the ArcFace template of ``size`` pixels, from a YuNet file."""
    from negface.curation.alignment import Aligner as TemplateAligner
    from negface.perception.faces import load_detector

    return TemplateAligner(load_detector(detector), size=size)


class Line:
    """One thread that finishes batches in order while the next is sampled, with threads that encode.

    At most ``depth`` batches are on it: ``submit`` waits for a place, so pictures never pile up in memory.
    """

    def __init__(self, depth: int = DEPTH, encoders: int = ENCODERS):
        self._places = threading.BoundedSemaphore(depth)
        self._finisher = ThreadPoolExecutor(1, thread_name_prefix="finishing")
        self._encoders = ThreadPoolExecutor(encoders, thread_name_prefix="encoding")
        self.encode = self._encoders.map

    def submit(self, call: Callable[..., T], *arguments: Any) -> Future[T]:
        """Put a call on the line; waits while it is full."""
        self._places.acquire()
        future = self._finisher.submit(call, *arguments)
        future.add_done_callback(lambda _: self._places.release())
        return future

    def close(self) -> None:
        """Let the threads end."""
        self._finisher.shutdown(wait=False, cancel_futures=True)
        self._encoders.shutdown(wait=False, cancel_futures=True)


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

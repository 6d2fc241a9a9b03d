"""Filters: a value for every picture, and whether it stays. Wanted identity, face, quality, leakage, copies.

Each is declared by a ``Step``; ``judge`` gives values (float64 ``[n]``) and whether each passes (bool ``[n]``).
Adherence and leakage: cosines as in ``negface.evaluation``; face: YuNet; quality: LightQNet; copies: difference hash.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from PIL import Image

from ..contexts.bank import ContextBank, unit_rows
from ..foundation.errors import InputError, MismatchError
from ..perception import Recognizer, load_detector, load_quality, load_recognizer, read_embeddings, recognizer_hash
from ..perception.inputs import resize_images
from .steps import Step

Judged = tuple[np.ndarray, np.ndarray]
HASH_BITS = 64
_ROWS = 8192


@dataclass(frozen=True)
class Pictures:
    """A batch under judgement: uint8 RGB ``[h, w, 3]`` pictures of any size, and the identity each should show."""

    images: Sequence[np.ndarray]
    identities: Sequence[str]
    _seen: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    def embeddings(self, recognizer: Recognizer) -> np.ndarray:
        """Unit embeddings float32 ``[n, d]``, made once for each recogniser; other sizes than its own are resized."""
        if id(recognizer) not in self._seen:
            self._seen[id(recognizer)] = recognizer.embed(_sized(self.images, recognizer.declaration.size))
        return self._seen[id(recognizer)]

    def __len__(self) -> int:
        return len(self.images)


def _sized(images: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    return np.concatenate([resize_images(image[None], size) for image in images])


class Filter(Protocol):
    """An opened filter; ``fresh`` gives one that remembers nothing."""

    def judge(self, pictures: Pictures) -> Judged:
        """Values and whether each picture passes."""
        ...

    def fresh(self) -> Filter:
        """The same filter, with an empty memory."""
        ...


class Loader:
    """Opens what steps name, each file once; ``contexts`` are the run's own identities, if it has some."""

    def __init__(self, contexts: ContextBank | None = None, *, conditioner: Mapping[str, Any] | None = None,
                 threads: int | None = 1):
        self.contexts, self.conditioner, self.threads = contexts, conditioner, threads
        self._recognizers: dict[str, Recognizer] = {}

    def recognizer(self, path: str) -> Recognizer:
        """The recogniser of a file."""
        if path not in self._recognizers:
            self._recognizers[path] = load_recognizer(path, threads=self.threads)
        return self._recognizers[path]


class _Stateless:
    def fresh(self) -> Any:
        return self


class Adherence(_Stateless):
    """Cosine of the conditioner's embedding to the wanted identity's context; at least ``least``."""

    parameters: ClassVar = {"least": None}
    files: ClassVar = ("recognizer", "contexts")
    required: ClassVar = ("least", "recognizer")
    example: ClassVar = "adherence,least=0.3,recognizer=edgeface_xs.onnx"

    def __init__(self, step: Step, loader: Loader):
        given = ContextBank.load(step.files["contexts"]) if "contexts" in step.files else None
        if (given is None) == (loader.contexts is None):
            raise InputError("needs a bank of contexts" if given is None else "has its contexts from the run already",
                             where="filter 'adherence'", fix="add contexts=BANK.safetensors" if given is None else
                             "leave contexts=... out")
        self.bank: ContextBank = given or loader.contexts
        self.recognizer, self.least = loader.recognizer(step.files["recognizer"]), step.parameters["least"]
        maker, mine = self.bank.conditioner or loader.conditioner, self.recognizer.declaration
        one, other = recognizer_hash(maker), recognizer_hash(mine)
        if one and other and one.lower() != other.lower():
            raise MismatchError(f"{mine.name} did not make these contexts ({(maker or {}).get('name', 'another')} did)",
                                where="filter 'adherence'", fix="give the conditioner")
        if mine.dim != self.bank.dim:
            raise MismatchError(f"{mine.name} gives {mine.dim} numbers, the contexts have {self.bank.dim}",
                                where="filter 'adherence'", fix="give the conditioner")

    def judge(self, pictures: Pictures) -> Judged:
        """Cosines; ``InputError`` for an identity that is not in the bank."""
        unknown = next((name for name in pictures.identities if name not in self.bank.row_of), None)
        if unknown is not None:
            raise InputError(f"identity {unknown!r} is not in the bank of contexts", where="filter 'adherence'")
        wanted = self.bank.contexts[[self.bank.row_of[name] for name in pictures.identities]]
        values = np.einsum("nd,nd->n", pictures.embeddings(self.recognizer), wanted, dtype=np.float64)
        return values, values >= self.least


class Face(_Stateless):
    """Score (0 to 1) of the best face that the detector finds, 0 where it finds none; at least ``least``."""

    parameters: ClassVar = {"least": 0.6}
    files: ClassVar = ("detector",)
    required: ClassVar = ("detector",)
    example: ClassVar = "face,least=0.6,detector=yunet.onnx"

    def __init__(self, step: Step, loader: Loader):
        self.least = step.parameters["least"]
        self.detector = load_detector(step.files["detector"], least_score=min(self.least, 0.1))

    def judge(self, pictures: Pictures) -> Judged:
        """Best scores."""
        found = [self.detector.detect(image).scores for image in pictures.images]
        values = np.array([scores[0] if len(scores) else 0.0 for scores in found], np.float64)
        return values, (values >= self.least) & (values > 0)


class Quality(_Stateless):
    """Face image quality (0 to 1) by an ONNX network; at least ``least``."""

    parameters: ClassVar = {"least": None}
    files: ClassVar = ("model",)
    required: ClassVar = ("least", "model")
    example: ClassVar = "quality,least=0.4,model=lightqnet.onnx"

    def __init__(self, step: Step, loader: Loader):
        self.least = step.parameters["least"]
        self.network = load_quality(step.files["model"], threads=loader.threads)

    def judge(self, pictures: Pictures) -> Judged:
        """Qualities."""
        values = self.network.score(_sized(pictures.images, self.network.declaration.size)).astype(np.float64)
        return values, values >= self.least


class Leakage(_Stateless):
    """Highest cosine to any picture of any training identity; at most ``most``, so nobody is redrawn closer than that.

    ``training`` are the training people's embeddings (``negface embed``) by the same recogniser.
    """

    parameters: ClassVar = {"most": None}
    files: ClassVar = ("recognizer", "training")
    required: ClassVar = ("most", "recognizer", "training")
    example: ClassVar = "leakage,most=0.5,recognizer=judge.onnx,training=training.npz"

    def __init__(self, step: Step, loader: Loader):
        self.recognizer, self.most = loader.recognizer(step.files["recognizer"]), step.parameters["most"]
        training = read_embeddings(step.files["training"])
        one, other = recognizer_hash(training.recognizer), recognizer_hash(self.recognizer)
        if (one and other and one != other) or training.embeddings.shape[1] != self.recognizer.declaration.dim:
            raise MismatchError("these embeddings were made by another recogniser", where=step.files["training"],
                                fix="embed the training people with the recogniser of this filter")
        if not len(training):
            raise InputError("holds no embeddings", where=step.files["training"])
        self.training = unit_rows(np.asarray(training.embeddings))

    def judge(self, pictures: Pictures) -> Judged:
        """Cosines to the nearest training picture."""
        seen, values = pictures.embeddings(self.recognizer), np.full(len(pictures), -np.inf)
        for start in range(0, len(self.training), _ROWS):
            values = np.maximum(values, (seen @ self.training[start:start + _ROWS].T).max(axis=1))
        return values, values <= self.most


class Duplicates:
    """A copy of a picture of the same identity that was kept before.

    The value is the smallest number of bits (of 64) by which the difference hash differs; a copy has at most ``bits``.
    With a recogniser a copy must also have a cosine of at least ``cosine``: the hash nominates, the eye confirms.
    """

    parameters: ClassVar = {"bits": 2, "cosine": 0.95}
    files: ClassVar = ("recognizer",)
    required: ClassVar = ("bits",)
    example: ClassVar = "duplicates,bits=2,recognizer=judge.onnx"

    def __init__(self, step: Step, loader: Loader):
        self.bits, self.cosine = step.parameters["bits"], step.parameters["cosine"]
        self.recognizer = loader.recognizer(step.files["recognizer"]) if "recognizer" in step.files else None
        self._kept: dict[str, list[tuple[np.ndarray, np.ndarray | None]]] = defaultdict(list)

    def fresh(self) -> Duplicates:
        """The same filter, which has seen nothing."""
        other = copy.copy(self)
        other._kept = defaultdict(list)
        return other

    def judge(self, pictures: Pictures) -> Judged:
        """Bits to the nearest kept picture, in order; what passes is remembered."""
        vectors = [None] * len(pictures) if self.recognizer is None else list(pictures.embeddings(self.recognizer))
        values = np.full(len(pictures), HASH_BITS, np.float64)
        keep = np.ones(len(pictures), bool)
        for row, (image, identity, vector) in enumerate(zip(pictures.images, pictures.identities, vectors)):
            mine, kept = difference_hash(image), self._kept[identity]
            bits = [int((mine != other).sum()) for other, _ in kept]
            values[row] = min(bits, default=HASH_BITS)
            keep[row] = not any(count <= self.bits and (vector is None or float(vector @ other) >= self.cosine)
                                for count, (_, other) in zip(bits, kept))
            if keep[row]:
                kept.append((mine, vector))
        return values, keep


def difference_hash(image: np.ndarray) -> np.ndarray:
    """64 bits (bool) of a uint8 RGB picture: is each of 8 x 9 grey cells brighter than its left neighbour?

    The "dHash" of N. Krawetz (Hacker Factor, 2013); cells by Pillow's bicubic reduction.
    """
    cells = np.asarray(Image.fromarray(image).convert("L").resize((9, 8), Image.Resampling.BICUBIC), np.int16)
    return (cells[:, 1:] > cells[:, :-1]).ravel()

"""Whom a run draws and whom it steers away from: the bank and the negatives, and how they reach a worker.

Vectors are no part of a finished dataset: it names the bank by hash and the identity by id, because an authentic bank
holds templates of real people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from negface.contexts import ContextBank, Selection, negatives, variation
from negface.foundation.errors import InputError, MismatchError, UnknownNameError
from negface.foundation.files import read_json, write_json
from negface.foundation.hashing import sha256_array, sha256_json

BANK_NAME, SELECTION_NAME, POOL_NAME = "bank.safetensors", "selection.safetensors", "pool.safetensors"
VARIATION_NAME = "variation.json"


@dataclass(frozen=True)
class Inputs:
    """The identities and their negatives.

    Attributes:
        bank: the identities; a run draws the first rows of it.
        selection: one negative for each row of the bank; ``None`` where every image draws its own (``strategy`` from
            ``pool``, or from the bank itself, keyed by ``seed``, identity and image).
        variation: ``{"name": "angular", "lower", "safe", "seed"}``: every image gets its own rotation of the
            context (IDperturb, arXiv 2602.18831); ``None``: all images of a person share one.
    """

    bank: ContextBank
    selection: Selection | None
    strategy: str
    pool: ContextBank | None = None
    seed: int = 0
    variation: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.variation is not None and self.variation.get("name") != "angular":
            raise UnknownNameError("variation", str(self.variation.get("name")), ["angular"])
        if self.selection is None:
            return
        if len(self.selection) != len(self.bank):
            raise InputError(f"{len(self.selection)} negatives for {len(self.bank)} contexts", where="negatives",
                             fix="select them for this bank: negface negatives BANK --strategy far --out FILE")
        if self.selection.dim != self.bank.dim:
            raise InputError(f"has vectors of length {self.selection.dim}, the bank {self.bank.dim}", where="negatives")
        recorded = self.selection.provenance.get("bank")
        if recorded and recorded != self.bank.hash:
            raise MismatchError("was made for another bank", where="negatives", fix="select the negatives again")

    @property
    def scope(self) -> str:
        """``identity`` or ``image``."""
        return "image" if self.selection is None else "identity"

    @property
    def varied(self) -> dict[str, Any] | None:
        """The variation as the plan has it."""
        return None if self.variation is None else dict(self.variation)

    @property
    def describes_real_people(self) -> bool:
        """Whether a context that is drawn or steered away from stands for somebody who exists."""
        negative = self.selection is not None and bool(self.selection.provenance.get("describes_real_people"))
        pool = self.pool is not None and self.pool.describes_real_people
        return self.bank.describes_real_people or negative or pool

    @cached_property
    def _lower(self) -> float | np.ndarray:
        """Least cosine of a varied and its own context: a number, or one for each identity."""
        lower = float(self.variation["lower"])
        return variation.safe_lower_bounds(self.bank, lower) if self.variation["safe"] else lower

    def contexts(self, labels: Sequence[int], images: Sequence[int]) -> np.ndarray:
        """float32 ``[n, d]``, the wanted context of each (label, image index)."""
        if self.variation is None:
            return self.bank.contexts[np.asarray(labels, dtype=np.int64)]
        return variation.angular(self.bank, labels, images, lower=self._lower, seed=self.variation["seed"])

    def negatives(self, labels: Sequence[int], images: Sequence[int]) -> Selection:
        """The negative of each (label, image index)."""
        if self.selection is not None:
            return self.selection.subset(np.asarray(labels, dtype=np.int64))
        return negatives.select_per_image(self.bank, self.strategy, labels, images, pool=self.pool, seed=self.seed)

    def describe(self) -> dict[str, Any]:
        """The plan's ``negatives``: strategy, scope, hash of the vectors, pool, seed where it matters."""
        drawn = self.strategy == "random"
        pool = self.pool.hash if self.pool is not None else None
        if self.selection is None:
            return {"strategy": self.strategy, "scope": "image", "hash": None, "seed": self.seed,
                    "pool": pool or self.bank.hash}
        said = self.selection.provenance
        return {"strategy": self.strategy, "scope": "identity", "hash": selection_hash(self.selection),
                "seed": said.get("seed", self.seed if drawn else None), "pool": said.get("pool", pool)}

    def save(self, folder: Path) -> None:
        """Leave everything in a folder for workers."""
        self.bank.save(folder / BANK_NAME)
        if self.selection is not None:
            self.selection.save(folder / SELECTION_NAME)
        if self.pool is not None:
            self.pool.save(folder / POOL_NAME)
        if self.variation is not None:
            write_json(folder / VARIATION_NAME, dict(self.variation))

    @classmethod
    def load(cls, folder: Path, strategy: str, seed: int) -> Inputs:
        """What ``save`` left."""
        selection, pool, varied = (folder / name for name in (SELECTION_NAME, POOL_NAME, VARIATION_NAME))
        return cls(ContextBank.load(folder / BANK_NAME), Selection.load(selection) if selection.exists() else None,
                   strategy, ContextBank.load(pool) if pool.exists() else None, seed,
                   read_json(varied) if varied.exists() else None)


def make_inputs(bank: ContextBank, strategy: str = "far", *, pool: ContextBank | None = None, seed: int = 0,
                scope: str = "identity", variation: Mapping[str, Any] | None = None) -> Inputs:
    """Choose the negatives of a bank.

    Args:
        strategy: a name of ``negatives.names()``.
        scope: ``identity`` (one negative for all images of a person) or ``image`` (``random`` only).
        variation: of the context from image to image, as in ``Inputs``.
    """
    if scope == "image":
        negatives.select_per_image(bank, strategy, [0], [0], pool=pool, seed=seed)
        return Inputs(bank, None, strategy, pool, seed, variation)
    return Inputs(bank, negatives.select(bank, strategy, pool=pool, seed=seed), strategy, pool, seed, variation)


def selection_hash(selection: Selection) -> str:
    """SHA-256 of what a selection selects."""
    return sha256_json([sha256_array(item) for item in (selection.kind, selection.indices, selection.negatives)])

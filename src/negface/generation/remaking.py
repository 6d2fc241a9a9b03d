"""``remake``: one picture again from its manifest row, in the batch it was made in, so that its bytes come back."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from negface.datasets import MANIFEST_NAME, Manifest
from negface.foundation.errors import InputError, MismatchError
from negface.foundation.hashing import sha256_bytes
from negface.foundation.threads import torch_threads

from .batches import BatchSampler
from .finishing import finisher
from .inputs import Inputs
from .machine import processor, versions
from .plan import Plan, Unit
from .publish import read_plan
from .units import batches_of
from .workers import Tools


@dataclass(frozen=True)
class Remade:
    """A picture made again: its encoded bytes, whether they are those of the row, and what differs here if not."""

    data: bytes
    row: dict[str, Any]
    identical: bool
    differs: list[str]


def find_row(root: str | os.PathLike, identity: str, image: int) -> tuple[Plan, dict[str, Any], list[dict[str, Any]]]:
    """The plan of a finished dataset, the row of a picture, and all rows of its unit.

    Raises:
        InputError: no such dataset, identity or picture.
    """
    root = Path(root)
    if not (root / MANIFEST_NAME).is_file():
        raise InputError("is no finished dataset: it has no manifest", where=root)
    plan = read_plan(root)
    if identity not in plan.identities:
        raise InputError(f"identity {identity!r} is not in it", where=root)
    unit = _unit_of(plan, plan.identities.index(identity))
    rows = [row for row in Manifest(root / MANIFEST_NAME) if row["unit"] == unit.number]
    row = next((row for row in rows if row["identity"] == identity and row["image"] == image), None)
    if row is None:
        kept = [row["image"] for row in rows if row["identity"] == identity]
        raise InputError(f"identity {identity!r} has no image {image}", where=root,
                         fix=f"it has {len(kept)}, numbered {min(kept)} to {max(kept)}" if kept else None)
    return plan, row, rows


def remake(root: str | os.PathLike, identity: str, image: int, inputs: Inputs, tools: Tools) -> Remade:
    """Make a picture of a finished dataset again.

    Args:
        root: the dataset. identity: its id. image: its image index, as in the row.
        inputs: the bank and the negatives it was made from. tools: the model, and the aligner for ``detect``.

    Returns:
        the bytes; ``identical`` to those of the row on the same kind of processor with the same versions.

    Raises:
        MismatchError: another bank, other negatives.
    """
    plan, row, rows = find_row(root, identity, image)
    check_inputs(plan, inputs)
    unit, item = _unit_of(plan, row["label"]), (row["label"], image)
    kept = {(other["label"], other["image"]) for other in rows}
    batch = next(batch for batch in batches_of(plan, unit, kept) if item in batch)
    with torch_threads(plan.threads):
        picture = BatchSampler(plan, inputs, tools.open_pipeline(plan))(batch)[batch.index(item)]
    # The filters have spoken when the dataset was made.
    data = finisher(plan, tools.open_aligner()).start()([picture], [identity])[0]
    if not isinstance(data, bytes):
        raise MismatchError("no face was found in it this time", where=f"{identity}/{image}",
                            fix="give the detector of the plan")
    here = {"processor": processor(plan.device), **versions(perception="opencv" in plan.versions)}
    there = {"processor": plan.processor, **plan.versions}
    differs = [f"{key}: {there.get(key)} there, {here.get(key)} here" for key in sorted({*here, *there})
               if here.get(key) != there.get(key)]
    return Remade(data, row, sha256_bytes(data) == row["sha256"], differs)


def check_inputs(plan: Plan, inputs: Inputs) -> None:
    """Refuse contexts and negatives that are not those of the plan."""
    if inputs.bank.hash != plan.contexts["hash"]:
        raise MismatchError("these contexts are not those of the dataset", where="contexts",
                            fix=f"its bank has the hash {plan.contexts['hash'][:12]}")
    if inputs.varied != plan.contexts.get("variation"):
        raise MismatchError(f"these contexts vary otherwise than those of the dataset: {inputs.varied} here, "
                            f"{plan.contexts.get('variation')} there", where="variation",
                            fix="give the variation of plan.json")
    if inputs.describe() != plan.negatives:
        raise MismatchError("these negatives are not those of the dataset", where="negatives",
                            fix=f"it was made with {plan.negatives['strategy']!r}, for each "
                                f"{plan.negatives['scope']}; give the same file or pool")


def _unit_of(plan: Plan, label: int) -> Unit:
    return plan.units()[label // plan.identities_per_unit]

"""``generate``: carry out a plan, on one process or several, now or after an interruption, to the last picture."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from negface.datasets import CARD_NAME, PLAN_NAME, FaceDataset
from negface.datasets import open as open_dataset
from negface.foundation.errors import IncompleteError, InputError
from negface.foundation.files import ensure_folder
from negface.foundation.progress import Progress

from .card import dataset_card
from .claims import claim
from .inputs import Inputs
from .plan import Plan
from .publish import Folder, clean, discard, finish, prepare, remove_workings, reopen, unpublish_broken
from .workers import RUN_LOCK, Tools, spawn_work, work


def generate(plan: Plan, inputs: Inputs, out: str | os.PathLike, tools: Tools, *, workers: int = 1) -> dict[str, Any]:
    """Make the dataset of a plan in ``out``; resumes what is there.

    Args:
        plan: from ``make_plan``. inputs: the same bank and negatives.
        tools: the model folder (or a pipeline) and, for ``detect``, how to make the aligner.
        workers: processes; one works inside this process. The bytes do not depend on their number.

    Returns:
        ``images, identities, images_made, images_kept`` (published before), ``faces_not_found, seconds,
        images_per_second, mean_weight, plan, out``.

    Raises:
        MismatchError: ``out`` holds another plan. OutputError: it cannot be written.
        IncompleteError: something asked for could not be made; all the rest is published.
    """
    if workers < 1:
        raise InputError(f"must be at least 1, not {workers}", where="workers")
    if inputs.bank.hash != plan.contexts["hash"]:
        raise InputError("these contexts are not those of the plan", where="generate")
    started = time.monotonic()
    fresh = not (Path(out) / PLAN_NAME).exists()
    folder = prepare(Path(out), plan)
    if folder.finished and reopen(folder):
        remove_workings(folder)
        return _result(folder, open_dataset(folder.root), made=0, seconds=time.monotonic() - started)
    ensure_folder(folder.units)
    with claim(folder.units / RUN_LOCK) as alone:
        if alone:
            clean(folder)
            unpublish_broken(folder)
    kept = sum(unit.count for unit in plan.units() if folder.part(unit).exists()) * plan.images
    try:
        failed = _work(folder, inputs, tools, workers, kept)
    except InputError:
        if fresh:
            discard(folder)
        raise
    if failed:
        raise IncompleteError(f"{len(failed)} of {len(plan.units())} units could not be made: {failed[0]}",
                              where=folder.root, fix="all other units are published")
    with claim(folder.units / "finish.lock", wait=True):
        if not folder.finished:
            finish(folder, dataset_card(plan))
    return _result(folder, open_dataset(folder.root), made=plan.total_images - kept, seconds=time.monotonic() - started)


def _work(folder: Folder, inputs: Inputs, tools: Tools, workers: int, kept: int) -> list[str]:
    pending = [unit for unit in folder.plan.units() if not folder.part(unit).exists()]
    if not pending:
        return []
    with Progress("generating", folder.plan.total_images, unit="images", done=kept) as bar:
        if workers > 1:
            inputs.save(folder.units)
            failed = spawn_work(folder, tools, min(workers, len(pending)), bar.advance)
            if failed:
                return failed
        # Alone, or after the workers: also waits for units that another command holds.
        with claim(folder.units / RUN_LOCK, wait=True, shared=True):
            return work(folder, inputs, tools, bar.advance)


def _result(folder: Folder, dataset: FaceDataset, *, made: int, seconds: float) -> dict[str, Any]:
    plan = folder.plan
    last = {}
    for row in dataset.manifest:
        last[row["label"]] = max(last.get(row["label"], 0), row["image"] + 1)
    return {"out": str(folder.root), "images": len(dataset), "identities": len(dataset.identities), "images_made": made,
            "images_kept": plan.total_images - made, "faces_not_found": sum(last.values()) - len(dataset),
            "seconds": seconds, "images_per_second": made / max(seconds, 1e-9) if made else None,
            "mean_weight": plan.mean_weight, "plan": plan.hash, "card": str(folder.root / CARD_NAME)}

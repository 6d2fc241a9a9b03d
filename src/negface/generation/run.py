"""``generate``: carry out a plan on one process, several or a cluster, now or resumed, to the last picture."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from negface.curation.screening import count_rejections, counts
from negface.datasets import CARD_NAME, PLAN_NAME
from negface.foundation.errors import IncompleteError, InputError, OutputError, UnknownNameError
from negface.foundation.files import ensure_folder

from .claims import claim
from .dispatch import Dispatcher, Pool
from .inputs import Inputs
from .local import InlinePool, LocalPool
from .plan import Plan, Unit
from .publish import Folder, clean, discard, finish, prepare, rejections, remove_workings
from .soundness import rejected_by_unit, reopen, unpublish_broken
from .status import SetAside, Status
from .workers import Tools

ENGINES = ("local", "ray")
_JOINED = "status-with-{}.json"


def generate(plan: Plan, inputs: Inputs, out: str | os.PathLike, tools: Tools, *, workers: int | None = None,
             engine: str = "local", address: str | None = None, shard: tuple[int, int] | None = None) -> dict[str, Any]:
    """Make the dataset of a plan in ``out``; resumes what is there.

    Args:
        plan: from ``make_plan``. inputs: the same bank and negatives.
        tools: the model folder (or a pipeline), how to make the aligner for ``detect``, where the filters' files are.
        workers: units at a time: processes of this machine (default 1, inside this process), or tasks of a cluster
            (default: as many as it has room for). The bytes depend neither on their number nor on the engine.
        engine: ``local`` or ``ray``. address: of a running Ray cluster; without it one is started on this machine.
        shard: ``(i, n)``: only every n-th unit, from the i-th (1 to n) on, for arrays of a batch scheduler that work
            on one folder; the last of them finishes the dataset.

    Returns:
        ``images, identities, images_made, images_kept`` (published before), ``complete`` (False where other shards are
        not done), ``rejected`` (counts by step), ``faces_not_found, seconds, images_per_second, mean_weight, plan,
        out``.

    Raises:
        MismatchError: ``out`` holds another plan. OutputError: it cannot be written.
        IncompleteError: something asked for could not be made; all the rest is published, and ``status.json`` says
            what was set aside.
    """
    _check(plan, inputs, workers, engine, address, shard)
    started = time.monotonic()
    fresh = not (Path(out) / PLAN_NAME).exists()
    folder = prepare(Path(out), plan)
    mine = plan.units() if shard is None else plan.units()[shard[0] - 1::shard[1]]
    name = _status_name(shard, alone=_check_what_is_there(folder))
    try:
        with claim(folder.run_lock, wait=True, shared=True):  # who is checking the folder is waited for
            pool = partial(_pool, folder, inputs, tools, engine, address, workers)
            set_aside, made = _work(folder, mine, pool, engine, name)
            if set_aside:
                raise _incomplete(folder, set_aside, len(mine))
            _finish_if_all_is_there(folder)
    except InputError:
        if fresh:
            discard(folder)
        raise
    _tidy(folder)
    return _result(folder, mine, made=made, seconds=time.monotonic() - started)


def _check_what_is_there(folder: Folder) -> bool:
    """Take back what is damaged, unless another command works here or is checking already; whether none does."""
    with claim(folder.run_lock) as alone:
        if alone and not (folder.finished and reopen(folder)):
            for path in folder.root.glob(_JOINED.format("*")):  # of commands that were killed
                path.unlink()
            ensure_folder(folder.units)
            clean(folder)
            unpublish_broken(folder)
    return alone


def _tidy(folder: Folder) -> None:
    """Remove from a finished dataset its workings, what killed writers left, and the lock; the last one here does."""
    with claim(folder.run_lock) as alone:
        if alone and folder.finished:
            clean(folder)
            remove_workings(folder)
            folder.run_lock.unlink()


def _status_name(shard: tuple[int, int] | None, *, alone: bool) -> str:
    """A command has a status file of its own."""
    if shard is not None:
        return f"status-{shard[0]}-of-{shard[1]}.json"
    return "status.json" if alone else _JOINED.format(f"{socket.gethostname()}-{os.getpid()}")


def check_engine(engine: str, address: str | None) -> None:
    """``UnknownNameError`` for an unknown engine, ``InputError`` for an address that it has no use for."""
    if engine not in ENGINES:
        raise UnknownNameError("engine", engine, ENGINES)
    if address is not None and engine != "ray":
        raise InputError("an address is for the engine 'ray'", where="address", fix="add --engine ray")


def _check(plan: Plan, inputs: Inputs, workers: int | None, engine: str, address: str | None,
           shard: tuple[int, int] | None) -> None:
    if workers is not None and workers < 1:
        raise InputError(f"must be at least 1, not {workers}", where="workers")
    check_engine(engine, address)
    if shard is not None and not 1 <= shard[0] <= shard[1]:
        raise InputError(f"{shard[0]}/{shard[1]} is no shard", where="shard", fix="1/n to n/n")
    if inputs.bank.hash != plan.contexts["hash"]:
        raise InputError("these contexts are not those of the plan", where="generate")
    if inputs.varied != plan.contexts.get("variation"):
        raise InputError("these contexts vary otherwise than the plan says", where="generate")


def parse_shard(text: str) -> tuple[int, int]:
    """``"2/5"`` as ``(2, 5)``."""
    found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if not found:
        raise InputError(f"{text!r} is no shard", where="shard", fix="give i/n, for example 2/5")
    return int(found[1]), int(found[2])


def _work(folder: Folder, mine: list[Unit], open_pool: Callable[[int], AbstractContextManager[Pool]], engine: str,
          name: str) -> tuple[list[SetAside], int]:
    """Make what is not published; what was set aside, and how many pictures were made here (not by other commands)."""
    pending = [unit for unit in mine if not folder.published(unit)]
    if not pending:
        return [], 0
    images = folder.plan.images
    kept = [unit for unit in mine if unit not in pending]
    with Status(folder.root / name, folder.plan, engine=engine, images=sum(unit.count for unit in mine) * images,
                kept=sum(unit.count for unit in kept) * images, units=len(mine), units_kept=len(kept)) as status:
        with open_pool(len(pending)) as pool:
            set_aside = Dispatcher(folder, pending, pool, status).run()
    return set_aside, status.made_here


@contextlib.contextmanager
def _pool(folder: Folder, inputs: Inputs, tools: Tools, engine: str, address: str | None, workers: int | None,
          pending: int) -> Iterator[Pool]:
    pool: Any
    if engine == "ray":
        from .ray_engine import RayPool

        pool = RayPool(folder, inputs, tools, address=address, workers=workers)
    elif min(workers or 1, pending) > 1:
        pool = LocalPool(folder, inputs, tools, min(workers or 1, pending))
    else:
        pool = InlinePool(folder, inputs, tools)
    try:
        yield pool
    finally:
        pool.close()


def _incomplete(folder: Folder, set_aside: list[SetAside], units: int) -> IncompleteError:
    first = set_aside[0]
    often = f" ({first.attempts} attempts)" if first.attempts > 1 else ""
    return IncompleteError(f"{len(set_aside)} of {units} units could not be made: {first.error}{often}",
                           where=folder.root, fix="all other units are published; status.json names those set aside, "
                                                  "and the same command tries them again")


def _finish_if_all_is_there(folder: Folder) -> None:
    """Finish the dataset, once, whichever command comes last."""
    if folder.finished:
        return
    try:
        with claim(folder.units / "finish.lock", wait=True):
            if not folder.finished and all(folder.part(unit).exists() for unit in folder.plan.units()):
                finish(folder)
    except OutputError:  # the folder of locks goes when another command finishes
        if not folder.finished:
            raise


def _result(folder: Folder, mine: list[Unit], *, made: int, seconds: float) -> dict[str, Any]:
    plan, complete = folder.plan, folder.finished
    shown = plan.units() if complete else mine
    if complete:
        lost = [row for rows in rejected_by_unit(folder).values() for row in rows]
    else:
        lost = [row for row in rejections(folder) if row["unit"] in {unit.number for unit in mine}]
    by_step, identities = count_rejections(lost), sum(unit.count for unit in shown)
    images = identities * plan.images
    return {"out": str(folder.root), "complete": complete, "images": images, "identities": identities,
            "images_made": made, "images_kept": images - made, "faces_not_found": by_step["align"],
            "rejected": counts(plan.rejecting_steps, by_step, images), "seconds": seconds,
            "images_per_second": made / max(seconds, 1e-9) if made else None, "mean_weight": plan.mean_weight,
            "plan": plan.hash, "card": str(folder.root / CARD_NAME)}

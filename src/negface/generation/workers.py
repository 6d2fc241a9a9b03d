"""Workers: processes that take units until none is left. One worker is this process; more are spawned.

Units are taken by claim, so it does not matter how many workers there are, when they start or which of them dies.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from negface.datasets import PLAN_NAME
from negface.foundation.errors import IncompleteError, InputError, NegFaceError
from negface.foundation.files import read_json

from .batches import BatchSampler, load_pipeline
from .claims import claim
from .finishing import Aligner, finisher
from .inputs import Inputs
from .plan import Plan
from .publish import Folder, publish
from .rows import row_details, shared_row
from .units import make_unit

RUN_LOCK = "run.lock"


@dataclass(frozen=True)
class Tools:
    """What a worker needs besides the plan: where the model is, and how to find faces.

    ``aligner`` is a function that makes the aligner from ``aligner_arguments``; both must pickle when more than one
    worker is asked for.
    """

    model: str | None = None
    pipeline: Any = None
    aligner: Callable[..., Aligner] | None = None
    aligner_arguments: tuple[Any, ...] = ()

    def open_pipeline(self, plan: Plan) -> Any:
        """The pipeline given, or the one in the model folder, ready on the plan's device."""
        if self.pipeline is None and self.model is None:
            raise InputError("neither a model folder nor a pipeline was given", where="generate")
        return self.pipeline if self.pipeline is not None else load_pipeline(self.model, plan)

    def open_aligner(self) -> Aligner | None:
        """A fresh aligner, or ``None``."""
        return None if self.aligner is None else self.aligner(*self.aligner_arguments)


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """``count`` torch threads while inside: sums are cut up by threads, so the plan fixes their number."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def work(folder: Folder, inputs: Inputs, tools: Tools, after_batch: Callable[[int], None], *,
         wait_for_others: bool = True) -> list[str]:
    """Take and publish units until all are published; returns what failed, one line for each unit that did.

    A unit in other hands is left for the end and then waited for, in case its holder dies.
    """
    plan = folder.plan
    failed: dict[int, str] = {}
    with torch_threads(plan.threads):
        sampler, finish = None, None
        for last in (False, True):
            for unit in plan.units():
                if unit.number in failed or folder.part(unit).exists() or (last and not wait_for_others):
                    continue
                with claim(folder.claim(unit), wait=last) as mine:
                    if not mine or folder.part(unit).exists():
                        continue
                    if sampler is None or finish is None:
                        sampler = BatchSampler(plan, inputs, tools.open_pipeline(plan))
                        finish = finisher(plan, tools.open_aligner())
                    try:
                        made = make_unit(plan, unit, sampler, finish, after_batch)
                    except IncompleteError as error:
                        failed[unit.number] = str(error)
                        continue
                    items = [(item.label, item.image) for item in made]
                    publish(folder, unit, made, shared_row(plan), row_details(plan, inputs, items))
    return list(failed.values())


def spawn_work(folder: Folder, tools: Tools, workers: int, after_batch: Callable[[int], None]) -> list[str]:
    """The same with ``workers`` processes; inputs are read from the folder. One worker's error ends them all."""
    context = multiprocessing.get_context("spawn")
    channels: dict[Connection, Any] = {}
    failed: set[str] = set()
    try:
        for number in range(workers):
            mine, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_worker, args=(theirs, str(folder.root), tools), daemon=True,
                                      name=f"negface-worker-{number}")
            process.start()
            theirs.close()
            channels[mine] = process
        while channels:
            for channel in wait(list(channels)):
                try:
                    kind, value = channel.recv()
                except EOFError:
                    process = channels.pop(channel)
                    process.join()
                    if process.exitcode != 0:
                        raise IncompleteError(f"a worker ended unexpectedly (exit code {process.exitcode})",
                                              where=folder.root, fix="run the same command again; it resumes") from None
                    continue
                if kind == "made":
                    after_batch(value)
                elif kind == "failed":
                    failed.update(value)
                else:
                    message, exit_code = value
                    raise (InputError if exit_code == 2 else IncompleteError)(message)
    finally:
        for process in channels.values():
            process.terminate()
            process.join()
    return sorted(failed)


class _ParentGone(BaseException):
    """The command that started this worker was killed."""


def _worker(channel: Connection, root: str, tools: Tools) -> None:
    parent = multiprocessing.parent_process()

    def after_batch(count: int) -> None:
        if parent is not None and not parent.is_alive():
            raise _ParentGone
        channel.send(("made", count))

    try:
        plan = Plan.from_dict(read_json(Path(root) / PLAN_NAME))
        folder = Folder(Path(root), plan)
        with claim(folder.units / RUN_LOCK, wait=True, shared=True):
            inputs = Inputs.load(folder.units, plan.negatives["strategy"], plan.negatives["seed"] or 0)
            channel.send(("failed", work(folder, inputs, tools, after_batch, wait_for_others=False)))
    except NegFaceError as error:
        channel.send(("error", (str(error), error.exit_code)))
    except (_ParentGone, BrokenPipeError, KeyboardInterrupt):
        os._exit(1)
    except Exception as error:
        channel.send(("error", (f"{type(error).__name__}: {error}", 1)))

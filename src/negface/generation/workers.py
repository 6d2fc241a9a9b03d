"""Workers: what a process does with the units it is given, and what it tells of them. Engines say which, and where.

A unit's pictures are published by a thread of their own while the next unit is sampled; one unit waits at most.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from negface.curation import Loader, Screen, Step, ordered
from negface.foundation.errors import IncompleteError, InputError, MismatchError
from negface.foundation.threads import torch_threads

from .batches import BatchSampler, load_pipeline
from .claims import claim
from .finishing import Aligner, Line, finisher
from .inputs import Inputs
from .plan import Plan, Unit
from .publish import Folder, publish
from .rows import row_details, shared_row
from .units import Harvest, make_unit

PROGRESS, SAMPLED, PUBLISHED, BUSY, FAILED, LOST, FATAL = range(7)


class Event(NamedTuple):
    """What a worker tells: ``PROGRESS`` (value: pictures), ``SAMPLED`` (it may take another unit), ``PUBLISHED``
    (value: rejections by step), ``BUSY`` (another command has it), ``FAILED`` (value: message, try again?), ``LOST``
    (the worker died on it; value: message, or ``None`` if it was no fault of the unit), ``FATAL`` (value: message, exit
    code)."""

    kind: int
    worker: str
    unit: int = -1
    value: Any = None


Report = Callable[[Event], None]


@dataclass(frozen=True)
class Tools:
    """What a worker needs besides the plan: where model and decoder are, how to find faces, where filters' files are.

    ``aligner`` is a function that makes the aligner from ``aligner_arguments``; both must pickle when more than one
    worker is asked for. ``filters`` are the plan's, with paths. ``conditioner`` is the model's own, by name and hash.
    """

    model: str | None = None
    pipeline: Any = None
    aligner: Callable[..., Aligner] | None = None
    aligner_arguments: tuple[Any, ...] = ()
    filters: tuple[Step, ...] = ()
    conditioner: Mapping[str, Any] | None = None
    decoder: str | None = None

    def open_pipeline(self, plan: Plan) -> Any:
        """The pipeline given, or the one in the model folder, ready on the plan's device."""
        if self.pipeline is None and self.model is None:
            raise InputError("neither a model folder nor a pipeline was given", where="generate")
        return self.pipeline if self.pipeline is not None else load_pipeline(self.model, plan, self.decoder)

    def open_aligner(self) -> Aligner | None:
        """A fresh aligner, or ``None``."""
        return None if self.aligner is None else self.aligner(*self.aligner_arguments)

    def open_screen(self, plan: Plan, inputs: Inputs) -> Screen | None:
        """The plan's filters; ``MismatchError`` if the files are not those it declares."""
        steps = ordered(list(self.filters))
        if [step.declared for step in steps] != list(plan.filters):
            raise MismatchError("the filters are not those of the plan", where="filters",
                                fix="give the same filters with the same files")
        if not steps:
            return None
        return Screen(steps, Loader(inputs.bank, conditioner=self.conditioner, threads=plan.threads))


class Maker:
    """Model, aligner, filters and codec of a plan, opened once; makes units."""

    def __init__(self, plan: Plan, inputs: Inputs, tools: Tools):
        self.plan, self.inputs = plan, inputs
        self.finisher = finisher(plan, tools.open_aligner(), tools.open_screen(plan, inputs))
        self.sampler = BatchSampler(plan, inputs, tools.open_pipeline(plan))
        self.line = Line()

    def make(self, unit: Unit, after_batch: Callable[[int], None] | None = None) -> Harvest:
        """The pictures of a unit."""
        with torch_threads(self.plan.threads):
            return make_unit(self.plan, unit, self.sampler, self.finisher.start(self.line.encode), self.line,
                             after_batch)

    def close(self) -> None:
        """End its threads."""
        self.line.close()


def publish_harvest(folder: Folder, inputs: Inputs, unit: Unit, harvest: Harvest) -> None:
    """Publish a unit with the rows that make each of its pictures again."""
    items = [(item.label, item.image) for item in harvest.made]
    publish(folder, unit, harvest, shared_row(folder.plan), row_details(folder.plan, inputs, items))


def explain(error: Exception) -> tuple[str, bool]:
    """What to say of a unit that failed, and whether to try again: too many rejections would come again."""
    if isinstance(error, IncompleteError):
        return str(error), False
    logging.getLogger(__name__).info("a unit failed", exc_info=error)
    return f"{type(error).__name__}: {error}", True


class Worker:
    """Takes units, makes them, and publishes each while the next is made. Errors of opening or writing are raised."""

    def __init__(self, folder: Folder, inputs: Inputs, tools: Tools, name: str, report: Report):
        self.folder, self.inputs, self.tools, self.name, self._report = folder, inputs, tools, name, report
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="publishing")
        self._pending: tuple[Unit, Harvest, contextlib.ExitStack, Future[None]] | None = None

    @cached_property
    def maker(self) -> Maker:
        """What makes units; opened for the first."""
        return Maker(self.folder.plan, self.inputs, self.tools)

    def take(self, unit: Unit) -> None:
        """Make a unit, unless it is published or in other hands, and begin to publish it."""
        held = contextlib.ExitStack()
        if self.folder.published(unit) or not held.enter_context(claim(self.folder.claim(unit))):
            held.close()
            self._report(Event(BUSY, self.name, unit.number))
            return
        with held:
            if self.folder.published(unit):
                self._report(Event(BUSY, self.name, unit.number))
                return
            maker = self.maker
            try:
                harvest = maker.make(unit, lambda count: self._report(Event(PROGRESS, self.name, unit.number, count)))
            except Exception as error:
                self._report(Event(FAILED, self.name, unit.number, explain(error)))
                return
            self.settle()
            self._pending = (unit, harvest, held.pop_all(), self._writer.submit(
                publish_harvest, self.folder, self.inputs, unit, harvest))
        self._report(Event(SAMPLED, self.name, unit.number))

    def settle(self, *, wait: bool = True) -> bool:
        """Tell of the unit being published once it is; True if none is left. Raises what the writing raised."""
        if self._pending is None:
            return True
        unit, harvest, held, writing = self._pending
        if not wait and not writing.done():
            return False
        self._pending = None
        with held:
            writing.result()
        self._report(Event(PUBLISHED, self.name, unit.number, dict(harvest.rejections)))
        return True

    def close(self) -> None:
        """End its threads; a unit that is being published is waited for."""
        self._writer.shutdown(wait=True)
        if self._pending is not None:
            self._pending[2].close()
        if "maker" in self.__dict__:
            self.maker.close()

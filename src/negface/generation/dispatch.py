"""Dispatch: units to a pool of workers until all are published, whatever happens to the workers.

A unit on which workers fail or die three times is set aside and reported; the rest completes.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import Protocol

from negface.foundation.errors import IncompleteError, InputError, OutputError

from .claims import claim
from .plan import Unit
from .publish import Folder
from .status import OTHERS, SetAside, Status
from .workers import BUSY, FAILED, FATAL, LOST, PROGRESS, PUBLISHED, Event, Report

ATTEMPTS = 3


class Pool(Protocol):
    """Workers of an engine."""

    def room(self) -> bool:
        """Whether another unit can be taken."""
        ...

    def submit(self, unit: Unit) -> None:
        """Give a unit to a worker."""
        ...

    def idle(self) -> bool:
        """Whether nothing is under way."""
        ...

    def step(self, hear: Report) -> None:
        """Wait for something to happen (a second at most, where others work) and tell of it."""
        ...


class Dispatcher:
    """The state of one command's units."""

    def __init__(self, folder: Folder, units: Sequence[Unit], pool: Pool, status: Status):
        self.folder, self.pool, self.status = folder, pool, status
        self.units = {unit.number: unit for unit in units}
        self.waiting, self.busy = deque(units), deque[Unit]()
        self.attempts: Counter[int] = Counter()
        self.published = 0

    def run(self) -> list[SetAside]:
        """Until every unit is published or set aside.

        Raises:
            InputError, IncompleteError: what no other attempt would mend, or the first units all failed.
        """
        while True:
            while self.waiting and self.pool.room():
                unit = self.waiting.popleft()
                self.status.handed_out(unit.number)
                self.pool.submit(unit)
            if not self.waiting and self.pool.idle():
                if not self.busy:
                    return self.status.set_aside
                self._wait_for(self.busy.popleft())
                continue
            self.pool.step(self.hear)

    def hear(self, event: Event) -> None:
        """Take in what a worker tells."""
        if event.kind == PROGRESS:
            self.status.progress(event.worker, event.unit, event.value)
        elif event.kind == PUBLISHED:
            self._count(event.worker, self.units[event.unit], event.value)
        elif event.kind == BUSY:
            self.busy.append(self.units[event.unit])
        elif event.kind in (FAILED, LOST):
            charged = event.value[0] is not None
            self.status.lost(event.worker, event.unit, died=charged and event.kind == LOST)
            self._again_or_aside(event)
        elif event.kind == FATAL:
            message, exit_code = event.value
            raise (InputError if exit_code == 2 else IncompleteError)(message)

    def _count(self, worker: str, unit: Unit, rejected: dict[str, int]) -> None:
        self.published += 1
        self.status.published(worker, unit.number, rejected, unit.count * self.folder.plan.images)

    def _again_or_aside(self, event: Event) -> None:
        unit, message, again = self.units[event.unit], *event.value
        self.attempts[unit.number] += message is not None
        if again and self.attempts[unit.number] < ATTEMPTS:
            self.waiting.appendleft(unit)
            return
        self.status.set_aside.append(SetAside(unit, message, self.attempts[unit.number]))
        given_up = [item for item in self.status.set_aside if item.attempts == ATTEMPTS]
        if len(given_up) == ATTEMPTS and not self.published and len(self.units) > ATTEMPTS:
            raise IncompleteError(f"the first {ATTEMPTS} units all failed, {ATTEMPTS} times each: {message}",
                                  where=self.folder.root, fix="this is not the fault of single units; run it again "
                                                              "with --verbose")

    def _wait_for(self, unit: Unit) -> None:
        """A unit in other hands: once they let go, it is published, or it is made here."""
        try:
            with claim(self.folder.claim(unit), wait=True):
                pass
        except OutputError:  # the folder of claims goes when the dataset is finished
            if not self.folder.finished:
                raise
        if self.folder.published(unit):
            self._count(OTHERS, unit, {})
        else:
            self.waiting.append(unit)

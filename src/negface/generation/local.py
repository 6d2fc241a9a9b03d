"""The engine ``local``: this process, or several of this machine that take units until none is left.

A worker that dies is replaced, and its unit is made again; the bytes do not depend on any of it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from negface.foundation.errors import MismatchError, NegFaceError

from .claims import claim
from .inputs import Inputs
from .machine import gpus, processor
from .plan import Unit
from .publish import Folder, read_plan
from .workers import BUSY, FAILED, FATAL, LOST, PUBLISHED, SAMPLED, Event, Report, Tools, Worker

_POLL = 0.02
START = "spawn"  # a forked child would inherit the threads' locks


class InlinePool:
    """One worker: this process."""

    def __init__(self, folder: Folder, inputs: Inputs, tools: Tools):
        self._events: list[Event] = []
        self._hear: Report = self._events.append
        self._worker = Worker(folder, inputs, tools, "this process", lambda event: self._hear(event))
        self._unit: Unit | None = None
        self._written = True

    def room(self) -> bool:
        """Whether no unit waits."""
        return self._unit is None

    def submit(self, unit: Unit) -> None:
        """Put a unit down for the next step."""
        self._unit = unit

    def idle(self) -> bool:
        """Whether nothing waits and nothing is being written."""
        return self._unit is None and self._written

    def step(self, hear: Report) -> None:
        """Make the unit; without one, wait for what is being written."""
        self._hear, unit, self._unit = hear, self._unit, None
        if unit is None:
            self._worker.settle()
            self._written = True
        else:
            self._written = False
            self._worker.take(unit)

    def close(self) -> None:
        """End its threads."""
        self._worker.close()


@dataclass
class _Member:
    """A place for a process: who has it, and what it works on."""

    name: str
    gpu: str | None = None
    process: Any = None
    channel: Connection | None = None
    sampling: Unit | None = None
    writing: dict[int, Unit] = field(default_factory=dict)


class LocalPool:
    """Several processes, of ``cuda`` one GPU after the other. Inputs are read from the folder, not through a pipe."""

    def __init__(self, folder: Folder, inputs: Inputs, tools: Tools, workers: int):
        inputs.save(folder.units)
        self._folder, self._tools = folder, tools
        self._context = multiprocessing.get_context(START)
        shared = gpus(folder.plan.device) or [None]
        self._members = [_Member(f"worker {number}", shared[number % len(shared)]) for number in range(workers)]

    def room(self) -> bool:
        """Whether a worker has nothing to sample."""
        return any(member.sampling is None for member in self._members)

    def submit(self, unit: Unit) -> None:
        """Give a unit to a free worker; one that is not running, or died, is started."""
        member = next(member for member in self._members if member.sampling is None)
        if member.channel is None:
            self._start(member)
        member.sampling = unit
        with contextlib.suppress(OSError):  # it died just now: its end of the pipe says so in the next step
            member.channel.send(unit.number)

    def _start(self, member: _Member) -> None:
        member.channel, theirs = self._context.Pipe()
        member.process = self._context.Process(
            target=serve, args=(theirs, str(self._folder.root), self._tools, member.name, member.gpu),
            daemon=True, name=f"negface {member.name}")
        member.process.start()
        theirs.close()

    def idle(self) -> bool:
        """Whether no worker has a unit."""
        return not any(member.sampling or member.writing for member in self._members)

    def step(self, hear: Report) -> None:
        """Wait for messages and tell them; notice deaths."""
        running = {member.channel: member for member in self._members if member.channel is not None}
        for channel in wait(list(running), timeout=1.0):
            member = running[channel]
            try:
                event = channel.recv()
            except (EOFError, OSError):
                for lost in self._bury(member):
                    hear(lost)
                continue
            self._note(member, event)
            if event.kind != SAMPLED:
                hear(event)

    @staticmethod
    def _note(member: _Member, event: Event) -> None:
        if event.kind == SAMPLED:
            member.writing[event.unit], member.sampling = member.sampling, None
        elif event.kind in (BUSY, FAILED):
            member.sampling = None
        elif event.kind == PUBLISHED:
            member.writing.pop(event.unit, None)
        elif event.kind == FATAL:
            member.sampling, member.writing = None, {}

    def _bury(self, member: _Member) -> Iterator[Event]:
        """What a dead worker leaves: one unit is charged with the death, the one it sampled, else the one it wrote."""
        member.process.join()
        member.channel.close()
        code, member.channel = member.process.exitcode, None
        sampling, member.sampling = member.sampling, None
        writing, member.writing = member.writing, {}
        said = f"a worker died on it (exit code {code})"
        to_say = None if sampling is not None else said
        for unit in writing.values():
            if self._folder.published(unit):
                yield Event(PUBLISHED, member.name, unit.number, {})
            else:
                yield Event(LOST, member.name, unit.number, (to_say, True))
                to_say = None
        if sampling is not None:
            yield Event(LOST, member.name, sampling.number, (said, True))

    def close(self) -> None:
        """Let idle workers end, and end the others."""
        running = [member for member in self._members if member.channel is not None]
        idle = [member for member in running if member.sampling is None and not member.writing]
        for member in idle:
            with contextlib.suppress(OSError):
                member.channel.send(None)
        for member in idle:
            member.process.join(5)
        for member in running:
            member.process.terminate()
            member.process.join()
            member.channel.close()


class _ParentGone(BaseException):
    """The command that started this worker was killed."""


def serve(channel: Connection, root: str, tools: Tools, name: str, gpu: str | None = None) -> None:
    """The life of a worker process: units come through the channel by number, events go back."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # before anything here has looked for a GPU
    parent = multiprocessing.parent_process()

    def report(event: Event) -> None:
        if parent is not None and not parent.is_alive():
            raise _ParentGone
        channel.send(event)

    try:
        plan = read_plan(Path(root))
        if gpu is not None and processor(plan.device) != plan.processor:
            raise MismatchError(f"is a {processor(plan.device)}, the plan says {plan.processor}: the bytes would "
                                "differ", where=f"GPU {gpu}", fix="name GPUs of one kind in CUDA_VISIBLE_DEVICES")
        folder, units = Folder(Path(root), plan), plan.units()
        with claim(folder.run_lock, wait=True, shared=True):
            inputs = Inputs.load(folder.units, plan.negatives["strategy"], plan.negatives["seed"] or 0)
            worker = Worker(folder, inputs, tools, name, report)
            while True:
                while not channel.poll(_POLL) and not worker.settle(wait=False):
                    pass
                number = channel.recv()
                if number is None:
                    break
                worker.take(units[number])
            worker.close()
    except NegFaceError as error:
        report(Event(FATAL, name, value=(str(error), error.exit_code)))
    except (_ParentGone, EOFError, BrokenPipeError, KeyboardInterrupt):
        os._exit(1)
    except Exception as error:
        report(Event(FATAL, name, value=(f"{type(error).__name__}: {error}", 1)))

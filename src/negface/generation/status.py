"""Status: how far a run is, for a person (a line on a terminal) and for a program (``status.json``, atomic).

The file is there while a run is going on or has stopped short; where the manifest is, all is done and it is removed.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from negface.foundation.errors import NegFaceError
from negface.foundation.files import write_json
from negface.foundation.progress import Progress

from .plan import Plan, Unit

EVERY = 2.0
OTHERS = "others"  # workers of other commands on the same folder


@dataclass
class _Share:
    """What one worker has done."""

    started: float
    images: int = 0
    units: int = 0
    deaths: int = 0
    unit: int | None = None
    current: Counter[int] = field(default_factory=Counter)


@dataclass(frozen=True)
class SetAside:
    """A unit that could not be made, and why."""

    unit: Unit
    error: str
    attempts: int


class Status:
    """Counts what workers report; use as a context manager around the work.

    Args:
        path: the status file. units: how many this command has to see published; kept: pictures there already.
        every: seconds between writes.
    """

    def __init__(self, path: Path, plan: Plan, *, engine: str, images: int, kept: int, units: int, units_kept: int,
                 every: float | None = None, clock: Callable[[], float] = time.monotonic):
        self.path, self.plan, self.engine, self._clock = path, plan, engine, clock
        self.every = EVERY if every is None else every
        self.images, self.kept, self.units, self.units_kept = images, kept, units, units_kept
        self.made = self.units_made = 0
        self.rejected: Counter[str] = Counter()
        self.set_aside: list[SetAside] = []
        self._shares: dict[str, _Share] = {}
        self._handed_out: dict[int, float] = {}
        self._bar = Progress("generating", images, unit="images", done=kept)
        self._started, self._written = clock(), -float("inf")

    def __enter__(self) -> Status:
        self._write("running")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._bar.__exit__()
        for share in self._shares.values():  # drawn and never published: they are not there
            unpublished = sum(share.current.values())
            share.images, self.made = share.images - unpublished, self.made - unpublished
            share.current.clear()
        done = self.units_kept + self.units_made == self.units
        state = "stopped" if kind else "done" if done else "incomplete"
        try:
            self._write(state)
        except NegFaceError:  # a full disk has its own error already; what is left there must not say "running"
            with contextlib.suppress(NegFaceError, OSError):
                self.path.unlink(missing_ok=True)
                self._write(state)

    @property
    def made_here(self) -> int:
        """Pictures that this command's own workers made."""
        return sum(share.images for name, share in self._shares.items() if name != OTHERS)

    def handed_out(self, unit: int) -> None:
        """A unit goes to a worker; from the first one on, its time counts."""
        self._handed_out[unit] = self._clock()

    def progress(self, worker: str, unit: int, count: int) -> None:
        """A worker made ``count`` pictures of a unit (negative: took them back)."""
        share = self._share(worker, unit)
        share.images, share.unit = share.images + count, unit
        share.current[unit] += count
        self.made += count
        self._bar.advance(count, self._note())
        if self._clock() - self._written >= self.every:
            self._write("running")

    def published(self, worker: str, unit: int, rejected: Mapping[str, int], images: int) -> None:
        """A unit of ``images`` pictures is published."""
        share = self._share(worker, unit)
        self.progress(worker, unit, images - share.current[unit])
        share.units += 1
        share.current.pop(unit, None)
        share.unit = None if share.unit == unit else share.unit
        self.units_made += 1
        self.rejected.update(rejected)

    def lost(self, worker: str, unit: int, *, died: bool = False) -> None:
        """A unit was given up in the middle: its pictures do not count."""
        share = self._share(worker, unit)
        share.deaths += died
        self.progress(worker, unit, -share.current[unit])
        share.current.pop(unit, None)
        share.unit = None

    def _share(self, worker: str, unit: int) -> _Share:
        return self._shares.setdefault(worker, _Share(self._handed_out.get(unit, self._clock())))

    def _note(self) -> str:
        if len(self._shares) < 2:
            return ""
        now = self._clock()
        rates = [f"{share.images / max(now - share.started, 1e-9):.2g}" for share in self._shares.values()]
        return f"{len(rates)} workers: {' '.join(rates[:8])}/s"

    def snapshot(self, state: str) -> dict[str, Any]:
        """What the file says: plain data."""
        now = self._clock()
        seconds, done = now - self._started, self.kept + self.made
        rate = self.made / max(seconds, 1e-9)
        return {
            "state": state, "plan": self.plan.hash, "engine": self.engine, "images": self.images, "images_done": done,
            "images_kept": self.kept, "share_done": done / max(self.images, 1), "images_per_second": rate,
            "seconds": round(seconds, 1), "seconds_left": (self.images - done) / rate if rate > 0 else None,
            "units": self.units, "units_done": self.units_kept + self.units_made,
            "set_aside": [{"unit": item.unit.number, "attempts": item.attempts, "error": item.error,
                           "identities": [self.plan.identities[label] for label in item.unit.labels]}
                          for item in self.set_aside],
            "rejected": dict(sorted(self.rejected.items())),
            "workers": [{"name": name, "images": share.images, "units": share.units, "unit": share.unit,
                         "deaths": share.deaths,
                         "images_per_second": share.images / max(now - share.started, 1e-9)}
                        for name, share in self._shares.items()],
            "host": socket.gethostname(), "pid": os.getpid(),
            "updated": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}

    def _write(self, state: str) -> None:
        self._written = self._clock()
        write_json(self.path, self.snapshot(state))

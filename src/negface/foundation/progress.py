"""Progress of anything longer than two seconds: rate and time left on a terminal, silence elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

T = TypeVar("T")


def format_seconds(seconds: float) -> str:
    """``75 -> "1m15s"``; short enough for a status line."""
    seconds = max(0, round(seconds))
    hours, minutes, rest = seconds // 3600, seconds // 60 % 60, seconds % 60
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


class Progress:
    """A one-line progress display: ``with Progress("sampling", total, unit="images") as bar: bar.advance(16)``.

    Drawn at most four times a second, on standard error, only if that is a terminal (or ``always``); ``lines=True``
    prints a full line every ``every`` seconds instead, for logs.
    """

    def __init__(
        self,
        label: str,
        total: int | None = None,
        *,
        unit: str = "it",
        stream: TextIO | None = None,
        always: bool = False,
        done: int = 0,
    ):
        self.label, self.total, self.unit = label, total, unit
        self.stream = stream or sys.stderr
        self.visible = always or self.stream.isatty()
        self.done, self.start_done, self.started, self.drawn, self.note = done, done, time.monotonic(), 0.0, ""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.visible and self.drawn:
            self._draw()
            self.stream.write("\n")
            self.stream.flush()

    @property
    def rate(self) -> float:
        """Units a second since the start."""
        return (self.done - self.start_done) / max(time.monotonic() - self.started, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """Estimate of the time left; ``None`` without a total or a rate."""
        return None if self.total is None or self.rate == 0 else (self.total - self.done) / self.rate

    def advance(self, count: int = 1, note: str | None = None) -> None:
        """Count ``count`` more as done."""
        self.done += count
        if note is not None:
            self.note = note
        now = time.monotonic()
        if self.visible and now - self.started > 1.0 and now - self.drawn > 0.25:
            self.drawn = now
            self._draw()

    def _draw(self) -> None:
        share = f"{100 * self.done / self.total:3.0f}% " if self.total else ""
        left = f", {format_seconds(self.seconds_left)} left" if self.seconds_left is not None else ""
        total = f"/{self.total}" if self.total else ""
        text = f"{self.label} {share}{self.done}{total} {self.unit} ({self.rate:.3g}/s{left}) {self.note}"
        self.stream.write("\r" + text[:118].ljust(118))
        self.stream.flush()


def track(items: Iterable[T], label: str, *, total: int | None = None, unit: str = "it") -> Iterator[T]:
    """Iterate with a progress display."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    with Progress(label, total, unit=unit) as bar:
        for item in items:
            yield item
            bar.advance()

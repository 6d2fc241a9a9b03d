"""Rendering in several processes: jobs go out, results come back in the order of the jobs, whatever the number.

Threads gain nothing here: a picture is thousands of small torch operations, which hold Python's lock in turn.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

from ..foundation.errors import IncompleteError, InputError, NegFaceError

WORTH_A_PROCESS = 250
"""A process takes seconds to start, so unless told otherwise there is one for so many pictures."""

_AHEAD = 2  # jobs in a process's hands: the one it is at, and the next
_WINDOW = 4  # results kept for each process until their turn comes


def workers_for(pictures: int, workers: int | None) -> int:
    """How many processes render ``pictures``: as asked for, else one a processor where that is worth starting them."""
    if workers is not None and workers < 1:
        raise InputError(f"{workers} workers were asked for", where="population", fix="ask for at least one")
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return workers or max(1, min(processors, pictures // WORTH_A_PROCESS))


def in_order(work: Callable[[Any], Any], jobs: Iterable[Any], workers: int) -> Iterator[Any]:
    """``work(job)`` of every job, in order: in this process if ``workers`` is 1, else in so many spawned ones.

    ``work``, jobs and results must pickle. The processes end with this generator, and when this process dies.

    Raises:
        NegFaceError: what ``work`` raised. IncompleteError: it raised anything else, or a process ended.
    """
    if workers == 1:
        yield from map(work, jobs)
        return
    context = multiprocessing.get_context("spawn")
    hands: dict[Connection, Any] = {}
    try:
        for number in range(workers):
            mine, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, work), daemon=True,
                                      name=f"negface-renderer-{number}")
            process.start()
            theirs.close()
            hands[mine] = process
        yield from _dealt(hands, iter(jobs))
    finally:
        for process in hands.values():
            process.terminate()
            process.join()


def _dealt(hands: dict[Connection, Any], jobs: Iterator[Any]) -> Iterator[Any]:
    held: dict[Connection, list[int]] = {channel: [] for channel in hands}
    ready: dict[int, Any] = {}
    sent = turn = 0
    more = True
    while True:
        while more and sent - turn < _WINDOW * len(hands):
            channel = min(held, key=lambda item: len(held[item]))
            if len(held[channel]) == _AHEAD:
                break
            try:
                job = next(jobs)
            except StopIteration:
                more = False
                break
            _send(channel, job, hands[channel])
            held[channel].append(sent)
            sent += 1
        if turn == sent:
            return
        for channel in wait([channel for channel in held if held[channel]]):
            ready[held[channel].pop(0)] = _answer(channel, hands[channel])
        while turn in ready:
            yield ready.pop(turn)
            turn += 1


def _ended(process: Any) -> IncompleteError:
    process.join()
    return IncompleteError(
        f"a rendering process ended unexpectedly (exit code {process.exitcode})", where="population",
        fix="in a script, make the call under if __name__ == '__main__': (each process imports the script), or ask for "
            "one worker")


def _send(channel: Connection, job: Any, process: Any) -> None:
    try:
        channel.send(job)
    except (BrokenPipeError, ConnectionResetError):
        raise _ended(process) from None


def _answer(channel: Connection, process: Any) -> Any:
    try:
        error, value = channel.recv()
    except (EOFError, ConnectionResetError):
        raise _ended(process) from None
    if not error:
        return value
    kind = {2: InputError, 1: IncompleteError}[error]
    raise kind(value)


def stop_if_orphaned() -> None:
    """End this process if it is a renderer whose parent was killed; asked before anything is written."""
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(1)


def _serve(channel: Connection, work: Callable[[Any], Any]) -> None:
    """Do jobs until the other end is closed, as it is when its process dies."""
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        while True:
            job = channel.recv()
            try:
                answer = (0, work(job))
            except NegFaceError as error:
                answer = (error.exit_code, str(error))
            except Exception as error:
                answer = (1, f"{type(error).__name__}: {error}")
            channel.send(answer)

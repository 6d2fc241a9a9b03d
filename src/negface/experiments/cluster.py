"""Cells of an experiment on a Ray cluster: tasks that take cells by claim, as processes of one machine do.

A node works in the experiment's own folder, so it must see that folder, and all files given, under the same paths.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from negface.foundation.errors import NegFaceError
from negface.generation.machine import processor, versions
from negface.generation.ray_engine import capacity, connect, import_ray

from .materials import LOCK

RETRIES = 3


@contextlib.contextmanager
def on_a_cluster(take: Callable[[], None], folder: Path, *, address: str | None, workers: int | None, threads: int,
                 device: str, say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Have tasks take cells while inside; they end with the block.

    Args:
        take: takes cells until none is free; must pickle. folder: the experiment's.
        address: as in ``generate``; workers: how many tasks, by default as many as the cluster has room for.
        threads, device: what a task needs. say: told of nodes that take no cells, and why.

    Yields a function that tells of such nodes, to be called now and then. Errors: ``InputError`` without a cluster.
    """
    ray = import_ray()
    mine = not ray.is_initialized()
    if mine:
        connect(ray, address, cpus=threads * (workers or 1))
    try:
        count = workers or capacity(ray, device, threads)
        task = ray.remote(take_cells).options(num_cpus=threads, num_gpus=1 if device.startswith("cuda") else 0,
                                              max_retries=RETRIES, scheduling_strategy="SPREAD")
        going = [task.remote(take, str(folder), {**versions(), "processor": processor(device)}, device)
                 for _ in range(count)]
        try:
            yield lambda: _tell(ray, going, say)
        finally:
            _tell(ray, going, say)
            for reference in going:
                ray.cancel(reference, force=True)
    finally:
        if mine:
            ray.shutdown()


def _tell(ray: Any, going: list[Any], say: Callable[[str], None]) -> None:
    """Say what tasks that ended have to say, once."""
    done = ray.wait(going, num_returns=len(going), timeout=0)[0] if going else []
    for reference in done:
        going.remove(reference)
        try:
            said = ray.get(reference)
        except ray.exceptions.RayError as error:
            said = f"a node was lost: {(str(error).strip().splitlines() or ['no reason given'])[0]}"
        if said:
            say(said)


def take_cells(take: Callable[[], None], folder: str, wanted: dict[str, str], device: str) -> str | None:
    """On a node: take cells until none is free. Returns why it cannot, or ``None``."""
    name = socket.gethostname()
    here = {**versions(), "processor": processor(device)}
    if here != wanted:
        differs = ", ".join(f"{key} {here.get(key)} for {value}" for key, value in wanted.items()
                            if here.get(key) != value)
        return f"{name} takes no cells: it has {differs}"
    if not (Path(folder) / LOCK).is_file():
        return f"{name} takes no cells: it does not see {folder}"
    try:
        take()
    except NegFaceError as error:
        return f"{name} takes no more cells: {error}"
    return None

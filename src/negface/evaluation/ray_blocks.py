"""The pass over all pairs on a Ray cluster: the embeddings travel once to a node, counts come back as they are done.

Counts are integers and are added in whatever order they arrive, so the result is that of one machine if the nodes'
processors multiply alike; another kind of processor may move a float32 score by its last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from negface.foundation.errors import InputError
from negface.foundation.threads import torch_threads

from .tails import MapBlocks, Tails

_RETRIES = 3


def over_ray(ray: Any, room: Callable[[], int]) -> MapBlocks:
    """A ``map_blocks`` for the cluster that ``ray``, the package, is connected to.

    ``room``: for how many tasks of one processor the cluster has room, asked again as parts come back; a few more than
    that are under way, so that what waits to be added stays small. A part whose node dies is counted again elsewhere;
    ``InputError`` if that fails three times.
    """
    def spread(work: Callable[[range], Tails], jobs: Sequence[range]) -> Iterable[Tails]:
        shared = ray.put(work)
        count = ray.remote(count_part).options(num_cpus=1, max_retries=_RETRIES, scheduling_strategy="SPREAD")
        waiting, under_way = iter(jobs), []
        while True:
            under_way += [count.remote(shared, job) for job in _first(waiting, room() + 2 - len(under_way))]
            if not under_way:
                return
            done, under_way = ray.wait(under_way, num_returns=1)
            try:
                yield ray.get(done[0])
            except ray.exceptions.RayError as error:
                said = (str(error).strip().splitlines() or ["no reason given"])[-1][:200]
                raise InputError(f"a part of the pass was lost ({said})", where="engine 'ray'",
                                 fix="every node needs this version of negface and memory for the embeddings; or use "
                                     "--engine local") from error

    return spread


def _first(items: Iterator[range], count: int) -> list[range]:
    return [item for _, item in zip(range(count), items)]


def count_part(work: Callable[[range], Tails], job: range) -> Tails:
    """On a node: one unit of a pass, on one thread."""
    with torch_threads(1):
        return work(job)

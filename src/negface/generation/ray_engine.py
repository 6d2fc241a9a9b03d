"""The engine ``ray``: units as tasks of a Ray cluster, whether started for this run or by the user, of any nodes.

Pictures come back through Ray's object store and are published here, so nodes need not share the output folder; they
need the same versions of this package and its libraries, and the model and filter files under the same paths. A node
that is otherwise gets no more units; only where no other is left does the command end.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from negface.foundation.errors import InputError, MismatchError, NegFaceError

from .claims import claim
from .inputs import Inputs
from .machine import processor, versions
from .plan import Plan, Unit, model_hash
from .publish import Folder
from .units import Harvest
from .workers import (
    BUSY,
    FAILED,
    FATAL,
    LOST,
    PROGRESS,
    PUBLISHED,
    Event,
    Maker,
    Report,
    Tools,
    explain,
    publish_harvest,
)

DEFAULT_PORT = 6379
_LOG = logging.getLogger(__name__)
_WRITERS, _LOCAL_STORE, _PATIENCE = 4, 256 << 20, 10.0
# The preface of HTTP/2 with an empty settings frame; the server's first frame is settings too (RFC 9113, sec. 3.4).
_SETTINGS = b"\x04"
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + _SETTINGS + bytes(5)


def import_ray() -> Any:
    """The package; ``InputError`` that says how to get it where it is missing."""
    try:
        import ray
    except ImportError as error:
        raise InputError("the engine 'ray' needs the package ray, which is not installed",
                         fix="pip install 'negface[ray]', or use --engine local with --workers") from error
    return ray


def full_address(address: str) -> str:
    """``auto`` as it is; a host gets Ray's usual port."""
    return address if address == "auto" or ":" in address else f"{address}:{DEFAULT_PORT}"


def check_address(address: str) -> None:
    """``InputError`` unless a server of Ray's kind (HTTP/2) answers at ``HOST:PORT``; Ray would wait for minutes."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE) as wire:
            wire.sendall(_GREETING)
            with wire.makefile("rb") as answer:
                if answer.read(4)[3:] != _SETTINGS and os.environ.get("RAY_USE_TLS", "0") == "0":
                    raise ConnectionError("something else listens")
    except (OSError, ValueError, OverflowError) as error:
        said = getattr(error, "strerror", None) or error
        raise InputError(f"no Ray cluster answers there ({said})", where=f"address {address}",
                         fix="start one: ray start --head; then --address auto, or HOST:PORT") from error


def connect(ray: Any, address: str | None, *, cpus: int) -> None:
    """Join the cluster at ``address``, or start one of ``cpus`` on this machine; ``InputError`` where neither works."""
    if address not in (None, "auto"):
        check_address(full_address(address))
    quiet = {"address": full_address(address)} if address is not None else {
        "address": "local",  # one of its own, also where another is running
        "include_dashboard": False, "num_cpus": cpus, "object_store_memory": _LOCAL_STORE}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster of ours calls nobody
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", **quiet)
    except Exception as error:  # Ray raises the bare class where a node does not start in time
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"no Ray cluster could be reached or started ({reason})", where=address or "ray",
                         fix="start one: ray start --head; then --address auto, or HOST:PORT") from error


def room_by_node(ray: Any, device: str, threads: int) -> dict[str, int]:
    """How many tasks of ``threads`` processors (and one GPU, for ``cuda``) each living node has room for, by its id."""
    needs = {"CPU": threads, **({"GPU": 1} if device.startswith("cuda") else {})}
    return {node["NodeID"]: min(int(node["Resources"].get(kind, 0) // each) for kind, each in needs.items())
            for node in ray.nodes() if node["Alive"]}


def capacity(ray: Any, device: str, threads: int) -> int:
    """How many such tasks the cluster has room for now.

    Raises:
        InputError: none, on any node: Ray would wait for ever.
    """
    room = sum(room_by_node(ray, device, threads).values())
    if not room:
        wanted = f"{threads} processors" + (" and a GPU" if device.startswith("cuda") else "")
        raise InputError(f"no node of the cluster has {wanted}, which each task needs", where="ray",
                         fix="--threads of a smaller number; start nodes with --num-gpus; --device cpu")
    return room


class RayPool:
    """Tasks of a Ray cluster.

    Args:
        address: ``auto`` or ``HOST[:PORT]`` of a running cluster; ``None`` starts one on this machine.
        workers: units at a time; ``None``: as many as the cluster has room for, counted anew as nodes come and go.
    """

    def __init__(self, folder: Folder, inputs: Inputs, tools: Tools, *, address: str | None, workers: int | None):
        self._ray, self._folder, self._inputs, self._workers = import_ray(), folder, inputs, workers
        plan = folder.plan
        self._mine = not self._ray.is_initialized()
        if self._mine:
            connect(self._ray, address, cpus=(workers or len(os.sched_getaffinity(0))) * plan.threads)
        try:
            capacity(self._ray, plan.device, plan.threads)
        except InputError:
            self._leave()
            raise
        self._job = self._ray.put((plan.to_dict(), inputs, tools))
        self._make = self._ray.remote(make_remotely).options(
            num_cpus=plan.threads, num_gpus=1 if plan.device.startswith("cuda") else 0, max_retries=0,
            scheduling_strategy="SPREAD")
        self._tasks: dict[Any, tuple[Unit, contextlib.ExitStack]] = {}
        self._unfit: set[str] = set()
        self._sent: Counter[str] = Counter()
        self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="publishing")
        self._writing: list[tuple[str, Unit, Harvest, contextlib.ExitStack, Future[None]]] = []
        self._heard: list[Event] = []

    def _fit(self) -> dict[str, int]:
        """The nodes that may have units, and for how many each has room."""
        plan = self._folder.plan
        room = room_by_node(self._ray, plan.device, plan.threads)
        return {node: count for node, count in room.items() if count and node not in self._unfit}

    def _capacity(self) -> int:
        return self._workers if self._workers is not None else max(1, sum(self._fit().values()))

    def room(self) -> bool:
        """Whether the cluster can take another unit, and the writing keeps up."""
        capacity = self._capacity()
        return len(self._tasks) < capacity and len(self._writing) < capacity + _WRITERS

    def submit(self, unit: Unit) -> None:
        """Send a unit to the cluster, unless another command has it."""
        held = contextlib.ExitStack()
        if self._folder.published(unit) or not held.enter_context(claim(self._folder.claim(unit))):
            held.close()
            self._heard.append(Event(BUSY, "others", unit.number))
            return
        self._tasks[self._task().remote(self._job, unit.number)] = (unit, held)

    def _task(self) -> Any:
        """The task, kept from nodes that were found unfit."""
        fit = self._fit() if self._unfit else {}
        if not fit:
            return self._make
        node = min(fit, key=lambda name: self._sent[name] / fit[name])
        self._sent[node] += 1
        there = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        return self._make.options(scheduling_strategy=there)

    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not (self._tasks or self._writing or self._heard)

    def step(self, hear: Report) -> None:
        """Collect what the cluster has made and what is written."""
        while self._heard:
            hear(self._heard.pop(0))
        if self._tasks:
            waiting = 0.05 if self._writing else 1.0
            for reference in self._ray.wait(list(self._tasks), num_returns=1, timeout=waiting)[0]:
                self._collect(reference, hear)
        elif self._writing:
            self._writing[0][-1].exception()
        self._settle(hear)

    def _collect(self, reference: Any, hear: Report) -> None:
        unit, held = self._tasks.pop(reference)
        try:
            kind, worker, value = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            held.close()
            said = (str(error).strip().splitlines() or ["no reason given"])[0]
            hear(Event(LOST, "cluster", unit.number, (f"a worker or its node died ({said})", True)))
            return
        if kind == PUBLISHED:
            hear(Event(PROGRESS, worker, unit.number, len(value.made)))
            self._writing.append((worker, unit, value, held, self._writers.submit(
                publish_harvest, self._folder, self._inputs, unit, value)))
            return
        held.close()
        if kind == FATAL:
            message, exit_code, node = value
            self._unfit.add(node)
            if self._fit():
                _LOG.warning("a node gets no more units: %s", message)
                kind, value = LOST, (None, True)
            else:
                value = message, exit_code
        hear(Event(kind, worker, unit.number, value))

    def _settle(self, hear: Report) -> None:
        written = [item for item in self._writing if item[-1].done()]
        self._writing = [item for item in self._writing if item not in written]
        for worker, unit, harvest, held, future in written:
            with held:
                future.result()
            hear(Event(PUBLISHED, worker, unit.number, dict(harvest.rejections)))

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        self._writers.shutdown(wait=True)
        for held in [item[1] for item in self._tasks.values()] + [item[3] for item in self._writing]:
            held.close()
        for reference in self._tasks:
            self._ray.cancel(reference, force=True)
        self._leave()

    def _leave(self) -> None:
        if self._mine:
            self._ray.shutdown()


_OPENED: dict[str, Maker] = {}


def _node() -> str:
    return import_ray().get_runtime_context().get_node_id()


def make_remotely(job: tuple[dict[str, Any], Inputs, Tools], number: int) -> tuple[int, str, Any]:
    """On a node: make one unit. Returns an event's kind, the worker's name, and a ``Harvest`` or a message.

    Of a node that is unfit, ``FATAL`` with message, exit code and the node's id.
    """
    name = f"{socket.gethostname()}:{os.getpid()}"
    try:
        plan = Plan.from_dict(job[0])
        if plan.hash not in _OPENED:
            _OPENED.clear()
            _OPENED[plan.hash] = _open(plan, *job[1:])
        maker = _OPENED[plan.hash]
    except NegFaceError as error:
        return FATAL, name, (f"on {name}: {error}", error.exit_code, _node())
    except Exception as error:
        return FATAL, name, (f"on {name}: {type(error).__name__}: {error}", 1, _node())
    try:
        return PUBLISHED, name, maker.make(plan.units()[number])
    except Exception as error:
        return FAILED, name, explain(error)


def _open(plan: Plan, inputs: Inputs, tools: Tools) -> Maker:
    """A maker, once this node has been found to be what the plan says."""
    here = versions(perception="opencv" in plan.versions)
    if here != plan.versions or processor(plan.device) != plan.processor:
        raise MismatchError(f"this node has {here} on {processor(plan.device)}, the plan says {plan.versions} on "
                            f"{plan.processor}", fix="the bytes would differ; install the same versions, or leave this "
                                                     "kind of node out")
    if tools.model is not None and model_hash(tools.model) != plan.model["hash"]:
        raise MismatchError("holds another model here than where the plan was made", where=tools.model,
                            fix="copy the model to the same path on every node")
    return Maker(plan, inputs, tools)

"""Engines: several processes, a cluster, and kill -9 at any moment; the bytes are always those of one process.

Workers are forked here, so that each need not import torch anew; users' are spawned (``test_generation_run.py``).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import threading
import time

import pytest

from negface.foundation.errors import IncompleteError
from negface.generation import Tools, generate, local, status


@pytest.fixture(autouse=True)
def forked(monkeypatch):
    monkeypatch.setattr(local, "START", "fork")


def workers() -> list[int]:
    return [process.pid for process in multiprocessing.active_children() if process.name.startswith("negface worker")]


@contextlib.contextmanager
def meanwhile(work):
    """``work(over)`` in a thread until the block ends."""
    over = threading.Event()
    thread = threading.Thread(target=work, args=(over,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)


@pytest.mark.process
@pytest.mark.parametrize(("count", "format"), [(2, "folder"), (5, "shards")])
def test_two_or_five_workers_give_the_bytes_of_one(made, digests, count, format):
    _, whole = made("one", n=10, unit_images=3, format=format)
    result, folder = made("many", n=10, unit_images=3, format=format, run={"workers": count})
    assert result["images_made"] == 30
    assert digests(folder) == digests(whole)


@pytest.mark.process
def test_a_worker_that_dies_is_replaced_and_its_unit_made_again(made, digests, tmp_path):
    options = {"n": 16, "unit_images": 3, "steps": 8, "scheduler": "ddpm"}
    _, whole = made("one", **options)
    killed, seen = [], []
    write = status.write_json

    def watch(path, said):
        seen.append([share["deaths"] for share in said["workers"]])
        write(path, said)

    def kill(over):
        while not over.wait(0.01):
            with contextlib.suppress(OSError, ProcessLookupError):
                if not killed and list((tmp_path / "two" / "units").glob("0*.json")) and workers():
                    os.kill(workers()[0], signal.SIGKILL)
                    killed.append(1)

    with meanwhile(kill), pytest.MonkeyPatch.context() as patch:
        patch.setattr(status, "EVERY", 0.0)
        patch.setattr(status, "write_json", watch)
        made("two", run={"workers": 2}, **options)
    assert killed
    assert digests(tmp_path / "two") == digests(whole)
    assert any(sum(deaths) == 1 for deaths in seen)


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fifty_kills_at_random_moments_lose_nothing_and_double_nothing(planned, made, model, digests, tmp_path):
    options = {"n": 24, "unit_images": 3, "steps": 5, "scheduler": "ddpm"}
    _, whole = made("one", **options)
    plan, inputs = planned(**options)
    chance, kills = random.Random(0), [0]

    def kill(over):
        while kills[0] < 50 and not over.wait(chance.expovariate(5)):
            with contextlib.suppress(ProcessLookupError, IndexError):
                os.kill(chance.choice(workers()), signal.SIGKILL)
                kills[0] += 1

    folder = tmp_path / "killed"
    while kills[0] < 50 or not (folder / "manifest.jsonl").exists():
        for path in sorted(folder.glob("images/*"))[::2] if (folder / "manifest.jsonl").exists() else []:
            next(path.iterdir()).unlink()  # it was done before it was killed often enough: there is more to do
        with meanwhile(kill), contextlib.suppress(IncompleteError):  # three deaths set a unit aside; the next run tries
            generate(plan, inputs, folder, Tools(model=str(model)), workers=3)
    assert digests(folder) == digests(whole)


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_cluster_of_which_a_node_is_killed_gives_the_bytes_of_one_process(planned, made, model, digests, tmp_path,
                                                                            monkeypatch):
    """Three nodes as separate processes; one is killed after the first units; nothing is lost."""
    pytest.importorskip("ray")
    for name, value in (("USAGE_STATS_ENABLED", 0), ("raylet_start_wait_time_s", 300),
                        ("worker_register_timeout_seconds", 600)):  # a busy machine is no failure
        monkeypatch.setenv(f"RAY_{name}", str(value))
    # The cluster has this machine's own address, which the guard against the network takes for another's.
    monkeypatch.setattr("negface.generation.ray_engine.check_address", lambda _: None)
    from ray.cluster_utils import Cluster

    options = {"n": 12, "unit_images": 3, "steps": 60, "scheduler": "ddpm"}
    _, whole = made("one", **options)
    plan, inputs = planned(**options)
    node = {"num_cpus": 1, "object_store_memory": 128 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    others = [cluster.add_node(**node) for _ in range(2)]
    killed = []

    def kill(over):
        while not over.wait(0.05):
            if not killed and len(list((tmp_path / "ray" / "units").glob("0*.json"))) >= 2:
                cluster.remove_node(others[0], allow_graceful=False)
                killed.append(time.monotonic())

    try:
        with meanwhile(kill):
            result = generate(plan, inputs, tmp_path / "ray", Tools(model=str(model)), engine="ray",
                              address=cluster.address)
    finally:
        cluster.shutdown()
    assert killed
    assert result["images_made"] == 36
    assert digests(tmp_path / "ray") == digests(whole)

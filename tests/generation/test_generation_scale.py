"""Generation at scale: failing units and dying workers, parts of an array, status, and writing beside the sampling."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter, deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from negface.foundation.errors import IncompleteError, InputError, OutputError, UnknownNameError
from negface.generation import Tools, generate
from negface.generation.batches import load_pipeline
from negface.generation.dispatch import ATTEMPTS, Dispatcher
from negface.generation.finishing import DEPTH, Line
from negface.generation.plan import Unit
from negface.generation.run import parse_shard
from negface.generation.status import Status
from negface.generation.units import make_unit
from negface.generation.workers import FAILED, LOST, PUBLISHED, Event


def failing(pipeline, identity: str, times: int):
    """The pipeline, which fails so many times when it is to draw an identity."""
    left = [times]

    def call(*args, seeds, **options):
        if left[0] and any(seed[1] == identity for seed in seeds):
            left[0] -= 1
            raise FloatingPointError("the denoiser gave NaN")
        return pipeline(*args, seeds=seeds, **options)
    return call


@pytest.fixture
def pipeline(planned, model):
    return load_pipeline(model, planned()[0])


def test_a_unit_that_fails_twice_is_made_at_the_third_attempt(made, digests, pipeline):
    _, whole = made("whole")
    result, folder = made("set", tools=Tools(pipeline=failing(pipeline, "2", 2)))
    assert result["complete"]
    assert digests(folder) == digests(whole)


def test_a_poisoned_unit_is_set_aside_and_the_rest_completes(made, digests, pipeline, tmp_path):
    _, whole = made("whole", unit_images=3)
    with pytest.raises(IncompleteError, match=r"1 of 4 units .*NaN.*3 attempts") as caught:
        made("set", tools=Tools(pipeline=failing(pipeline, "1", 3)), unit_images=3)
    assert caught.value.exit_code == 1
    folder = tmp_path / "set"
    assert sorted(path.name for path in (folder / "images").iterdir()) == ["000000", "000002", "000003"]
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["images_done"], status["units_done"]) == ("incomplete", 9, 3)
    assert status["set_aside"][0]["identities"] == ["1"]
    result, _ = made("set", unit_images=3)
    assert result["images_made"] == 3
    assert digests(folder) == digests(whole)


def test_when_every_unit_fails_the_run_stops_early(made, pipeline):
    calls = []

    def broken(*args, **options):
        calls.append(1)
        raise FloatingPointError("NaN")

    with pytest.raises(IncompleteError, match="the first 3 units all failed"):
        made("set", n=8, tools=Tools(pipeline=broken), unit_images=3)
    assert len(calls) == ATTEMPTS * 3


def test_parts_of_an_array_make_the_same_dataset(made, digests):
    _, whole = made("whole", unit_images=3)
    for number in (2, 1):
        result, folder = made_part(made, (number, 3))
        assert not result["complete"]
        assert not (folder / "manifest.jsonl").exists()
    assert (result["images"], result["images_made"]) == (6, 6)
    result, folder = made_part(made, (3, 3))
    assert result["complete"]
    assert digests(folder) == digests(whole)


def made_part(made, shard):
    return made("parts", unit_images=3, run={"shard": shard})


@pytest.mark.parametrize(("options", "said"), [
    ({"shard": (0, 3)}, "no shard"), ({"shard": (4, 3)}, "no shard"), ({"engine": "dask"}, "unknown engine"),
    ({"address": "auto"}, "engine 'ray'"), ({"workers": 0}, "at least 1")])
def test_wrong_ways_to_run_are_refused(made, tmp_path, options, said):
    with pytest.raises(InputError, match=said):
        made(run=options)
    assert not (tmp_path / "set").exists()
    assert parse_shard("2/5") == (2, 5)
    with pytest.raises(InputError, match="no shard"):
        parse_shard("2 of 5")
    assert issubclass(UnknownNameError, InputError)


def test_ray_that_is_not_installed_is_named_with_the_way_to_get_it(made, monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(InputError, match=r"negface\[ray\]"):
        made(run={"engine": "ray"})
    assert not (tmp_path / "set").exists()


def answer_once(server, answer: bytes) -> None:
    """Hear one greeting out, and answer."""
    with server.accept()[0] as wire:
        heard = 0
        while heard < 33:
            heard += len(wire.recv(64))
        wire.sendall(answer)


def test_an_address_where_no_cluster_answers_is_refused_at_once_in_one_line(monkeypatch):
    import socket

    from negface.generation import ray_engine
    from negface.generation.ray_engine import check_address, connect

    monkeypatch.setattr(ray_engine, "_PATIENCE", 0.5)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.monotonic()
    for address, said in ((f"127.0.0.1:{port}", "no Ray cluster answers there"), ("localhost:99999", "answers there"),
                          ("localhost:port", "answers there")):
        with pytest.raises(InputError, match=said) as caught:
            connect(None, address, cpus=1)
        assert address in str(caught.value)
        assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 60
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"ray://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(InputError, match="timed out"):
            check_address(address)
        server.accept()[0].close()
        for answer, refused in ((b"SSH-2.0-x\r\n", True), (bytes(3) + b"\x04" + bytes(5), False)):
            threading.Thread(target=answer_once, args=(server, answer), daemon=True).start()
            with pytest.raises(InputError, match="something else listens") if refused else contextlib.nullcontext():
                check_address(address)


def test_a_node_makes_what_this_process_makes_and_refuses_other_versions(planned, model, pipeline, monkeypatch):
    """The task of the Ray engine, called here: it needs no cluster to be right."""
    from dataclasses import replace

    from negface.generation import ray_engine
    from negface.generation.ray_engine import make_remotely
    from negface.generation.workers import FATAL, Maker

    plan, inputs = planned()
    tools = Tools(model=str(model))
    kind, _, harvest = make_remotely((plan.to_dict(), inputs, tools), 1)
    assert kind == PUBLISHED
    assert harvest == Maker(plan, inputs, Tools(pipeline=pipeline)).make(plan.units()[1])
    other = replace(plan, versions={**plan.versions, "torch": "1.0"})
    monkeypatch.setattr(ray_engine, "_node", lambda: "n1")
    kind, _, (message, exit_code, node) = make_remotely((other.to_dict(), inputs, tools), 1)
    assert (kind, exit_code, node) == (FATAL, 2, "n1")
    assert "install the same versions" in message


class Fates:
    """A pool that does with a unit what a list says: publish, fail, die, or lose it without fault."""

    def __init__(self, fates, room: int):
        self.fates, self.size, self.going, self.published = list(fates), room, deque(), Counter()

    def room(self) -> bool:
        return len(self.going) < self.size

    def idle(self) -> bool:
        return not self.going

    def submit(self, unit) -> None:
        self.going.append(unit)

    def step(self, hear) -> None:
        unit = self.going.popleft()
        fate = self.fates.pop() if self.fates else "publish"
        if fate == "publish":
            self.published[unit.number] += 1
            hear(Event(PUBLISHED, "w", unit.number, {}))
        else:
            message = None if fate == "lose" else "why"
            hear(Event(FAILED if fate == "fail" else LOST, "w", unit.number, (message, True)))


class StubFolder:
    root = "set"
    plan = type("Plan", (), {"images": 2, "hash": "0" * 64, "identities": tuple(map(str, range(99)))})


@given(fates=st.lists(st.sampled_from(["publish", "fail", "die", "lose"]), max_size=40), room=st.integers(1, 5),
       count=st.integers(1, 12))
def test_whatever_fails_every_unit_is_published_once_or_set_aside(tmp_path_factory, fates, room, count):
    units = [Unit(number, number, 1) for number in range(count)]
    status = Status(tmp_path_factory.getbasetemp() / "status.json", StubFolder.plan, engine="x", images=2 * count,
                    kept=0, units=count, units_kept=0, every=1e9)
    pool = Fates(fates, room)
    try:
        aside = Dispatcher(StubFolder(), units, pool, status).run()
    except IncompleteError:
        assert not pool.published
        return
    assert set(pool.published.values()) <= {1}
    assert sorted([*pool.published, *(item.unit.number for item in aside)]) == list(range(count))
    assert status.made == 2 * len(pool.published)
    assert all(item.attempts == ATTEMPTS for item in aside)


def test_status_says_how_far_it_is_and_goes_when_all_is_done(made, pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr("negface.generation.status.EVERY", 0.0)
    seen = []

    def watched(*args, **options):
        seen.append(json.loads((tmp_path / "set" / "status.json").read_text()))
        return pipeline(*args, **options)

    _, folder = made("set", tools=Tools(pipeline=watched), unit_images=3)
    assert not list(folder.glob("status*"))
    shares = [status["share_done"] for status in seen]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert 0.5 <= shares[-1] < 1
    last = seen[-1]
    assert (last["state"], last["engine"], last["images"], last["units"]) == ("running", "local", 12, 4)
    assert last["images_per_second"] > 0
    assert last["seconds_left"] > 0
    assert last["workers"][0]["images"] == last["images_done"]


def test_the_line_holds_so_many_batches_and_no_more():
    line, going, most, lock = Line(depth=DEPTH), 0, 0, threading.Lock()
    gate = threading.Event()
    submitted = []

    def slow(number):
        gate.wait(5)
        return number

    def fill():
        for number in range(6):
            submitted.append(line.submit(slow, number))

    thread = threading.Thread(target=fill)
    thread.start()
    time.sleep(0.2)
    with lock:
        going = most = len(submitted)
    assert going == most == DEPTH
    gate.set()
    thread.join(5)
    assert [future.result(5) for future in submitted] == list(range(6))
    line.close()


def test_the_next_batch_is_sampled_while_one_is_finished(planned):
    plan, _ = planned(batch=2, images=4)
    second, waited, batches = threading.Event(), [], []

    def sample(batch):
        batches.append(batch)
        if len(batches) == 2:
            second.set()
        return np.zeros((len(batch), 8, 8, 3), np.uint8)

    def finish(pictures, names):
        waited.append(second.wait(20))
        return [b"picture"] * len(pictures)

    line = Line(depth=DEPTH)
    harvest = make_unit(plan, plan.units()[0], sample, finish, line)
    line.close()
    assert waited == [True] * len(batches)
    assert len(harvest.made) == 4 * len(plan.units()[0].labels)


def test_the_next_unit_is_sampled_while_one_is_written(
        made, pipeline, monkeypatch):
    from negface.generation import workers

    sampled, written_after = [], []
    real = workers.publish_harvest

    def slowly(folder, inputs, unit, harvest):
        deadline = time.monotonic() + 20
        while unit.number == 0 and len(sampled) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        written_after.append((unit.number, len(sampled)))
        real(folder, inputs, unit, harvest)

    def noted(*args, **options):
        sampled.append(1)
        return pipeline(*args, **options)

    monkeypatch.setattr(workers, "publish_harvest", slowly)
    made("set", tools=Tools(pipeline=noted), unit_images=3)
    assert written_after[0] == (0, 2)


@pytest.mark.parametrize("format", ["folder", "shards"])
def test_a_full_disk_ends_the_run_in_one_error_and_loses_nothing(made, digests, monkeypatch, tmp_path, format):
    from negface.generation import publish

    _, whole = made("whole", format=format, unit_images=3)
    name = {"folder": "_write_folders", "shards": "_write_shard"}[format]
    real, count = getattr(publish, name), [0]

    def full(folder, unit, items):
        count[0] += 1
        if count[0] == 3:
            from negface.foundation.files import output_errors

            with output_errors(folder.root):
                raise OSError(28, "No space left on device")
        return real(folder, unit, items)

    monkeypatch.setattr(publish, name, full)
    with pytest.raises(OutputError, match="no space left"):
        made("set", format=format, unit_images=3)
    assert json.loads((tmp_path / "set" / "status.json").read_text())["state"] == "stopped"
    monkeypatch.undo()
    result, folder = made("set", format=format, unit_images=3)
    assert result["images_kept"] == 6
    assert digests(folder) == digests(whole)


def test_a_full_disk_leaves_no_status_that_says_running(made, pipeline, tmp_path, monkeypatch):
    """The disk has room for one status file: only in place of the last one can another be written."""
    from negface.generation import status

    real, path = status.write_json, tmp_path / "set" / "status.json"

    def full(target, value):
        if target.exists():
            raise OutputError("cannot write: no space left on the device", where=target)
        real(target, value)

    def broken(*args, **options):
        monkeypatch.setattr(status, "write_json", full)
        raise OutputError("no space left on the device")

    monkeypatch.setattr("negface.generation.workers.publish_harvest", broken)
    with pytest.raises(OutputError, match="no space left"):
        made("set", tools=Tools(pipeline=pipeline), unit_images=3)
    said = json.loads(path.read_text())
    assert (said["state"], said["images_done"], said["workers"][0]["images"]) == ("stopped", 0, 0)


def test_a_shard_truncated_before_the_run_is_finished_is_found_and_made_again(made, digests, pipeline):
    _, whole = made("whole", format="shards")
    with pytest.raises(IncompleteError):
        made("set", format="shards", tools=Tools(pipeline=failing(pipeline, "3", 3)))
    folder = whole.parent / "set"
    shard = folder / "shards" / "000000.tar"
    shard.write_bytes(shard.read_bytes()[:-3000])
    result, _ = made("set", format="shards")
    assert result["images_made"] == 12
    assert digests(folder) == digests(whole)


def test_two_commands_on_one_folder_share_the_work(planned, model, tmp_path, digests, made):
    """A unit in other hands is waited for, and made here once they let go without having made it."""
    from negface.generation.claims import claim
    from negface.generation.publish import prepare

    _, whole = made("whole")
    plan, inputs = planned()
    folder = prepare(tmp_path / "set", plan)
    folder.units.mkdir()
    other = claim(folder.claim(plan.units()[0]))
    assert other.__enter__()
    threading.Timer(1.0, lambda: other.__exit__(None, None, None)).start()
    generate(plan, inputs, folder.root, Tools(model=str(model)))
    assert digests(folder.root) == digests(whole)

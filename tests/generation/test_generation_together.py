"""Commands and machines together: who checks and who makes, whose pictures count, which nodes and GPUs may work."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from types import SimpleNamespace

import pytest

from negface.foundation.errors import IncompleteError, InputError
from negface.generation import Tools, generate, local, machine, ray_engine, workers
from negface.generation.claims import claim
from negface.generation.publish import Folder, prepare
from negface.generation.soundness import unpublish_broken
from negface.generation.status import OTHERS, Status
from negface.generation.workers import FATAL, LOST, PUBLISHED


def damage(folder) -> None:
    picture = sorted(folder.rglob("*.jpg"))[0]
    picture.write_bytes(picture.read_bytes()[:-7])


def in_a_thread(work):
    """Start ``work``; a function that waits for it and gives what it returned or raised."""
    said = []

    def run():
        try:
            said.append(work())
        except BaseException as error:
            said.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def join():
        thread.join(60)
        return said[0]
    return join


@pytest.mark.parametrize("shard", [None, (1, 2)])
def test_a_unit_that_another_command_is_about_to_take_back_is_made_again(planned, made, model, digests, tmp_path,
                                                                         shard):
    """The other command checks what is there; this one must not take a damaged unit for published meanwhile."""
    _, whole = made("whole")
    _, folder = made("set", run={"shard": (2, 2)})
    made("set", run={"shard": (1, 2)})
    plan, inputs = planned()
    there = Folder(folder, plan)
    (folder / "manifest.jsonl").rename(tmp_path / "aside")  # as after the last unit, before the finish
    there.units.mkdir(exist_ok=True)
    rows = [json.loads(line) for line in (tmp_path / "aside").read_text().splitlines()]
    for unit in plan.units():
        there.part(unit).write_text(json.dumps({"rows": [row for row in rows if row["unit"] == unit.number],
                                                "rejected": []}))
    damage(folder)
    with claim(there.run_lock) as alone:
        assert alone
        result = in_a_thread(lambda: generate(plan, inputs, folder, Tools(model=str(model)), shard=shard))
        time.sleep(0.5)
        assert not (folder / "manifest.jsonl").exists()
        unpublish_broken(there)
    assert result()["images_made"] == 6
    if shard is None:
        assert digests(folder) == digests(whole)


def test_two_commands_on_a_damaged_finished_dataset_both_end_well(planned, made, model, digests):
    _, whole = made("whole")
    _, folder = made("set")
    damage(folder)
    plan, inputs = planned()
    results = [in_a_thread(lambda: generate(plan, inputs, folder, Tools(model=str(model)))) for _ in range(2)]
    ends = [result() for result in results]
    assert all(end["complete"] for end in ends)
    assert sum(end["images_made"] for end in ends) == 6
    assert digests(folder) == digests(whole)


def test_a_lock_file_that_is_removed_while_one_waits_is_not_the_lock(tmp_path):
    path, order = tmp_path / "lock", []

    def second():
        with claim(path, wait=True):
            order.append("second")
            assert path.exists()
            with claim(path) as held:
                assert not held

    with claim(path):
        waiting = in_a_thread(second)
        time.sleep(0.2)
        path.unlink()
        order.append("first")
    assert waiting() is None
    assert order == ["first", "second"]


def test_pictures_of_other_commands_are_not_counted_as_made_here(planned, made, model, tmp_path):
    plan, inputs = planned(unit_images=3)
    folder = prepare(tmp_path / "set", plan)
    folder.units.mkdir()
    with contextlib.ExitStack() as held, claim(folder.run_lock, shared=True):
        held.enter_context(claim(folder.claim(plan.units()[0])))  # another command has the first unit
        result = in_a_thread(lambda: generate(plan, inputs, folder.root, Tools(model=str(model))))
        while len(list(folder.units.glob("*.json"))) < 3:
            time.sleep(0.05)
        [status] = [json.loads(path.read_text()) for path in folder.root.glob("status-with-*.json")]
        assert status["images"] == 12
        assert not (folder.root / "status.json").exists()
        made("twin", unit_images=3)
        publish_as_twin(folder, Folder(tmp_path / "twin", plan))
    assert result()["images_made"] == 9
    assert result()["complete"]


def publish_as_twin(folder: Folder, twin: Folder) -> None:
    """Publish the first unit with what a finished twin holds of it."""
    rows = [json.loads(line) for line in (twin.root / "manifest.jsonl").read_text().splitlines()]
    (twin.root / "images/000000").rename(folder.root / "images/000000")
    folder.part(folder.plan.units()[0]).write_text(
        json.dumps({"rows": [row for row in rows if row["unit"] == 0], "rejected": []}))


def test_a_workers_rate_counts_from_when_it_got_its_first_unit(planned, tmp_path):
    plan, _ = planned()
    now = [0.0]
    with Status(tmp_path / "status.json", plan, engine="x", images=12, kept=0, units=2, units_kept=0,
                clock=lambda: now[0]) as status:
        status.handed_out(0)
        now[0] = 100.0
        status.published("node", 0, {}, 6)
        now[0] = 101.0
        [worker] = status.snapshot("running")["workers"]
        assert worker["images_per_second"] == pytest.approx(6 / 101)
        status.published(OTHERS, 1, {}, 6)
        assert status.made_here == 6


@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "MKL_CBWR"])
def test_a_limit_on_the_matrix_libraries_is_another_kind_of_processor(monkeypatch, name):
    monkeypatch.delenv(name, raising=False)
    before = machine.processor("cpu")
    monkeypatch.setenv(name, "AVX2")
    assert machine.processor("cpu") != before


def test_a_processor_that_multiplies_bfloat16_otherwise_is_another_kind(monkeypatch):
    import torch

    if not hasattr(torch.cpu, "get_capabilities"):
        pytest.skip("this torch does not tell")
    kinds = set()
    for amx in (True, False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda amx=amx: {"amx_bf16": amx})
        kinds.add(machine.processor("cpu"))
    assert len(kinds) == 2


def test_a_plan_names_what_looks_at_the_pictures_only_where_something_does(planned, tmp_path):
    import cv2
    import onnxruntime

    plain, _ = planned()
    assert "onnxruntime" not in plain.versions
    detector = tmp_path / "yunet.onnx"
    detector.write_bytes(b"x")
    seen, _ = planned(align="detect", detector=detector)
    assert (seen.versions["onnxruntime"], seen.versions["opencv"]) == (onnxruntime.__version__, cv2.__version__)


@pytest.mark.parametrize(("visible", "expected"), [("2,5", ["2", "5"]), (None, ["0", "1", "2"])])
def test_workers_share_out_the_gpus(monkeypatch, visible, expected):
    import torch

    from negface.generation.local import LocalPool

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine.gpus("cuda") == expected
    assert machine.gpus("cuda:1") == machine.gpus("cpu") == []
    folder = SimpleNamespace(plan=SimpleNamespace(device="cuda"), units=None)
    pool = LocalPool(folder, SimpleNamespace(save=lambda _: None), Tools(), workers=4)
    assert [member.gpu for member in pool._members] == (expected * 2)[:4]


def test_a_compiled_plan_is_another_plan_and_old_plans_keep_their_hash(planned):
    plain, _ = planned()
    assert "compiled" not in plain.to_dict()
    assert planned(compiled=True)[0].differences(plain) == ["compiled: True / False"]


class Cluster:
    """As much of Ray as the pool asks for: nodes, tasks that end at once with what ``fates`` says of their node."""

    def __init__(self, nodes, fates=None):
        self.alive, self.fates, self.sent = dict(nodes), fates or {}, []
        self.exceptions = SimpleNamespace(RayError=RuntimeError)
        affinity = SimpleNamespace(NodeAffinitySchedulingStrategy=lambda node, soft: SimpleNamespace(node_id=node))
        self.util = SimpleNamespace(scheduling_strategies=affinity)

    def is_initialized(self):
        return True

    def nodes(self):
        return [{"NodeID": name, "Alive": True, "Resources": has} for name, has in self.alive.items()]

    def put(self, value):
        return value

    def remote(self, function):
        return self

    def options(self, scheduling_strategy="SPREAD", **_):
        chosen = getattr(scheduling_strategy, "node_id", None)
        return SimpleNamespace(options=self.options,
                               remote=lambda job, number: self.send(chosen or next(iter(self.alive)), number))

    def send(self, node, number):
        self.sent.append((node, number))
        return (node, number, len(self.sent))

    def wait(self, waiting, **_):
        return waiting[:1], waiting[1:]

    def get(self, reference):
        node, _, _ = reference
        if node in self.fates:
            return FATAL, node, (self.fates[node], 2, node)
        return PUBLISHED, node, SimpleNamespace(made=[1], rejections={})


@pytest.fixture
def pool_on(planned, tmp_path, monkeypatch):
    """``pool_on(cluster)``: a pool with three units handed out, one after the other, and what was heard."""
    def make(cluster, **options):
        plan, inputs = planned(unit_images=3, **options)
        folder = prepare(tmp_path / "set", plan)
        folder.units.mkdir(exist_ok=True)
        monkeypatch.setattr(ray_engine, "import_ray", lambda: cluster)
        monkeypatch.setattr(ray_engine, "publish_harvest", lambda *_: None)
        pool, heard = ray_engine.RayPool(folder, inputs, Tools(), address=None, workers=None), []
        for unit in plan.units()[:3]:
            pool.submit(unit)
            while not pool.idle():
                pool.step(heard.append)
        pool.close()
        return heard
    return make


def test_a_node_without_the_model_gets_no_more_units_and_the_others_go_on(pool_on):
    cluster = Cluster({"bad": {"CPU": 1}, "good": {"CPU": 2}}, {"bad": "holds another model"})
    heard = pool_on(cluster)
    assert [event.kind for event in heard if event.kind in (LOST, PUBLISHED)] == [LOST, PUBLISHED, PUBLISHED]
    assert next(event for event in heard if event.kind == LOST).value == (None, True)
    assert [node for node, _ in cluster.sent] == ["bad", "good", "good"]


def test_where_every_node_is_unfit_the_command_ends(pool_on):
    heard = pool_on(Cluster({"bad": {"CPU": 1}}, {"bad": "holds another model"}))
    assert heard[0].kind == FATAL
    assert heard[0].value == ("holds another model", 2)


@pytest.mark.parametrize(("options", "wanted"), [({"threads": 4}, "4 processors"),
                                                 ({"device": "cuda"}, "1 processors and a GPU")])
def test_a_cluster_on_which_no_task_fits_is_refused(pool_on, monkeypatch, options, wanted):
    monkeypatch.setattr("negface.generation.planning.processor", lambda device: "any")
    with pytest.raises(InputError, match=wanted):
        pool_on(Cluster({"a": {"CPU": 2}, "b": {"CPU": 2}}), **options)


@pytest.mark.process
def test_a_unit_that_kills_whoever_writes_it_is_set_aside_and_no_other(made, digests, monkeypatch):
    options = {"n": 6, "unit_images": 3, "run": {"workers": 2}}
    _, whole = made("whole", n=6, unit_images=3)
    with monkeypatch.context() as patch:
        publish = workers.publish_harvest
        patch.setattr(local, "START", "fork")
        patch.setattr(workers, "publish_harvest", lambda folder, inputs, unit, harvest: os._exit(9)
                      if unit.number == 5 else publish(folder, inputs, unit, harvest))
        with pytest.raises(IncompleteError, match=r"1 of 6 units .* a worker died on it .* \(3 attempts\)"):
            made("set", **options)
    said = json.loads((whole.parent / "set" / "status.json").read_text())
    assert [item["unit"] for item in said["set_aside"]] == [5]
    assert sum(share["deaths"] for share in said["workers"]) == 3
    assert digests(made("set", **options)[1]) == digests(whole)


def test_what_a_killed_writer_left_is_not_in_the_finished_dataset(made, digests, planned):
    _, whole = made("whole", unit_images=3)
    plan, _ = planned(unit_images=3)
    folder = prepare(whole.parent / "set", plan)
    made("set", run={"shard": (1, 2)}, unit_images=3)
    with claim(folder.run_lock, shared=True):  # another command works, so nothing is cleaned at the start
        left = folder.root / "images" / ".tmp-0123abcd-000000"
        left.mkdir(parents=True)
        (left / "00000.jpg").write_bytes(b"half")
        made("set", run={"shard": (2, 2)}, unit_images=3)
    made("set", unit_images=3)
    assert digests(folder.root) == digests(whole)

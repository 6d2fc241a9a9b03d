"""The whole command killed, poison, a compiled denoiser: what several workers make is still what one would have made.

Workers are forked here, so that each need not import torch anew.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from negface import datasets
from negface.curation import make_step
from negface.foundation.errors import IncompleteError
from negface.foundation.files import write_json
from negface.generation import Tools, generate, local, status, verify, workers
from negface.generation.workers import Maker
from negface.perception.declarations import sidecar_path
from tiny_onnx import write_linear


@pytest.fixture(autouse=True)
def forked(monkeypatch):
    monkeypatch.setattr(local, "START", "fork")


@pytest.fixture
def command(model):
    """``process = command(plan, inputs, folder)``: ``generate`` on 3 workers, a process group that can be killed."""
    groups = []

    def run(*arguments, before):
        os.setpgid(0, 0)
        before()
        generate(*arguments, Tools(model=str(model)), workers=3)

    def start(*arguments, before=lambda: None):
        process = multiprocessing.get_context("fork").Process(target=run, args=arguments, kwargs={"before": before})
        process.start()
        groups.append(process.pid)
        while process.exitcode is None and os.getpgid(process.pid) != process.pid:
            time.sleep(0.001)
        return process

    yield start
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def leftovers(folder):
    return [path.name for path in folder.rglob("*") if path.name.startswith(".")]


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_command_killed_twenty_times_with_all_its_workers_ends_with_the_bytes_of_an_undisturbed_one(
        planned, made, command, digests, tmp_path):
    options = {"n": 24, "unit_images": 3, "steps": 5, "scheduler": "ddpm", "format": "shards"}
    _, whole = made("one", **options)
    plan, inputs = planned(**options)
    started = time.monotonic()
    command(plan, inputs, tmp_path / "timed").join()
    chance, seconds, folder, kills = random.Random(0), time.monotonic() - started, tmp_path / "killed", 0
    while kills < 20:
        for path in sorted(folder.glob("shards/*"))[::3] if (folder / "manifest.jsonl").exists() else []:
            path.unlink()  # it was done before it was killed often enough: there is more to do
        process = command(plan, inputs, folder)
        process.join(chance.uniform(0, seconds))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL), "what a killed command left must not make the next one fail"
        kills += process.exitcode == -signal.SIGKILL
    process = command(plan, inputs, folder)
    process.join()
    assert process.exitcode == 0
    assert digests(folder) == digests(tmp_path / "timed") == digests(whole)
    assert leftovers(folder) == []
    assert verify(folder)["sound"]


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_command_killed_at_any_of_its_renames_leaves_nothing_that_the_next_one_cannot_finish(
        planned, made, model, command, digests, tmp_path, after):
    """Each file is published by a rename: the command dies at the first, at the second, … up to the manifest's."""
    options = {"n": 6, "unit_images": 6, "format": "shards"}
    _, whole = made("one", **options)
    plan, inputs = planned(**options)
    replace, finished, left = os.replace, False, set()
    while not finished:
        number, folder = len(left), tmp_path / str(len(left))
        count = multiprocessing.get_context("fork").Value("i", 0)

        def dying(source, target, count=count, number=number):
            with count.get_lock():
                count.value += 1
                mine = count.value - 1 == number
                if mine and not after:
                    os.killpg(0, signal.SIGKILL)
                replace(source, target)
                if mine:
                    os.killpg(0, signal.SIGKILL)

        process = command(plan, inputs, folder, before=lambda dying=dying: setattr(os, "replace", dying))
        process.join()
        finished = process.exitcode == 0
        left.add((number, (folder / "README.md").exists(), (folder / "manifest.jsonl").exists()))
        generate(plan, inputs, folder, Tools(model=str(model)))
        assert digests(folder) == digests(whole), f"killed at rename {number}"
        assert leftovers(folder) == [], f"killed at rename {number}"
        assert verify(folder)["sound"]
    assert {(card, manifest) for _, card, manifest in left} == {(False, False), (True, False), (True, True)}
    assert len(left) > 3 * 2 + 3


@pytest.mark.process
def test_a_unit_that_kills_its_worker_three_times_is_set_aside_and_named_and_made_once_it_no_longer_does(
        made, digests, tmp_path):
    options = {"n": 6, "unit_images": 3, "format": "shards"}
    _, whole = made("one", **options)
    make, folder = Maker.make, tmp_path / "two"

    def poisoned(self, unit, *rest):
        if unit.number == 2:
            os._exit(9)
        return make(self, unit, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Maker, "make", poisoned)
        with pytest.raises(IncompleteError) as caught:
            made("two", run={"workers": 2}, **options)
    assert "1 of 6 units could not be made: a worker died on it (exit code 9) (3 attempts)" in str(caught.value)
    assert caught.value.exit_code == 1
    said = json.loads((folder / "status.json").read_text())
    assert (said["state"], said["units_done"], said["images_done"]) == ("incomplete", 5, 15)
    assert [(item["unit"], item["identities"], item["attempts"]) for item in said["set_aside"]] == [(2, ["2"], 3)]
    for unit in (0, 1, 3, 4, 5):
        name = f"shards/{unit:06d}.tar"
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    assert not (folder / "manifest.jsonl").exists()
    result, _ = made("two", run={"workers": 2}, **options)
    assert result["images_made"] == 3
    assert digests(folder) == digests(whole)


@pytest.mark.process
def test_a_worker_that_dies_with_one_unit_sampled_and_another_being_written_died_once(made, tmp_path, monkeypatch):
    make, publish, died, seen = Maker.make, workers.publish_harvest, tmp_path / "died", []

    def dying(self, unit, *rest):
        if unit.number == 2 and not died.exists():
            died.touch()
            os._exit(9)
        return make(self, unit, *rest)

    def slow(*arguments):
        while not died.exists():
            time.sleep(0.2)
        publish(*arguments)

    write = status.write_json
    monkeypatch.setattr(Maker, "make", dying)
    monkeypatch.setattr(workers, "publish_harvest", slow)
    monkeypatch.setattr(status, "write_json", lambda path, said: (seen.append(said), write(path, said)))
    made("two", n=6, unit_images=3, run={"workers": 2})
    assert sum(share["deaths"] for share in seen[-1]["workers"]) == 1


@pytest.fixture
def replaced(made, tmp_path):
    """A quality filter that about a third of the pictures fail, and tries enough."""
    from negface.perception import load_quality

    file = write_linear(tmp_path / "quality.onnx", size=16, dim=1)
    write_json(sidecar_path(file), {"name": "linear", "task": "quality", "size": [16, 16], "channels": "RGB",
                                    "mean": 127.5, "std": 127.5, "dim": 1})
    faces = datasets.open(made("unfiltered", images=6, codec_name="png")[1])
    values = load_quality(file).score(np.stack([faces[i][0] for i in range(len(faces))]))
    step = make_step("quality", {"least": float(np.quantile(values, 0.35)), "model": file})
    return {"filters": (step,), "codec_name": "png", "tries": 20}, {}


@pytest.fixture
def fast(model, tmp_path):
    """A fast decoder of the model's autoencoder."""
    from negface.models import FastDecoder
    from negface.pipelines.fast_decoder import weights_hash

    FastDecoder(2, (8,), (1,), 2, weights_hash(model / "vae")).save_pretrained(tmp_path / "fast")
    return {"decoder": tmp_path / "fast"}, {"tools": Tools(model=str(model), decoder=str(tmp_path / "fast"))}


@pytest.fixture
def half():
    return {"dtype": "bf16"}, {}


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("choice", ["replaced", "half", "fast"])
def test_three_workers_give_the_bytes_of_one_whatever_the_plan_chooses(made, digests, request, choice):
    options, rest = request.getfixturevalue(choice)
    options = {"n": 10, "images": 4, "unit_images": 4, "format": "shards", **options}
    _, whole = made("one", **options, **rest)
    result, folder = made("three", run={"workers": 3}, **options, **rest)
    assert result["images_made"] == 40
    assert digests(folder) == digests(whole)
    assert verify(folder)["sound"]
    assert bool(result["rejected"] and result["rejected"][0]["rejected"]) == (choice == "replaced")
    plain, chosen = (datasets.open(place) for place in (
        made("plain", n=10, images=4, format="shards", codec_name=options.get("codec_name", "jpeg"))[1], folder))
    assert any(plain.read(i) != chosen.read(i) for i in range(40)), "the choice made no difference"


def compiles() -> str:
    """Why ``torch.compile`` does not work here; empty if it does."""
    import torch

    try:
        torch.compile(lambda x: torch.nn.functional.silu(x) + 1)(torch.ones(8))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_compiled_denoiser_gives_the_same_bytes_on_two_workers_and_nearly_the_pictures_of_a_plain_one(
        made, digests, monkeypatch, tmp_path):
    monkeypatch.setattr(local, "START", "spawn")  # the compiler has threads of its own
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    if reason := compiles():
        pytest.skip(f"torch.compile does not work here: {reason[:200]}")
    options = {"n": 4, "images": 3, "unit_images": 3, "codec_name": "png"}
    _, plain = made("plain", **options)
    _, one = made("one", compiled=True, **options)
    result, two = made("two", compiled=True, run={"workers": 2}, **options)
    assert result["images_made"] == 12
    assert digests(two) == digests(one)
    assert json.loads((two / "plan.json").read_text())["compiled"]
    pictures = [np.stack([faces[i][0] for i in range(12)]).astype(int) for faces in map(datasets.open, (one, plain))]
    assert np.abs(pictures[0] - pictures[1]).mean() < 1


def children() -> set[str]:
    """Names of the processes that this one has started and that have not ended."""
    lines = [path.read_text().rpartition(")") for path in Path("/proc").glob("[0-9]*/stat") if path.exists()]
    return {name.partition("(")[2] for name, _, rest in lines
            if rest.split()[1] == str(os.getpid()) and rest.split()[0] != "Z"}


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_cluster_started_for_the_run_gives_the_bytes_of_one_process_and_is_gone_afterwards(
        made, digests, monkeypatch):
    ray = pytest.importorskip("ray")
    for name, value in (("raylet_start_wait_time_s", 300), ("worker_register_timeout_seconds", 600)):
        monkeypatch.setenv(f"RAY_{name}", str(value))  # a busy machine is no failure
    options = {"n": 6, "unit_images": 3, "format": "shards"}
    _, whole = made("one", **options)
    result, folder = made("ray", run={"engine": "ray", "workers": 2}, **options)
    assert result["images_made"] == 18
    assert digests(folder) == digests(whole)
    assert not ray.is_initialized()
    assert not children() & {"raylet", "gcs_server"}

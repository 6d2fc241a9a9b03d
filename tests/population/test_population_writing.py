"""A population on disk: opens as a dataset, carries its truth, complete or not at all, and gone on with when killed."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from negface import datasets
from negface.foundation.errors import IncompleteError, InputError, OutputError
from negface.population import CLASSES, TRAIT_NAMES, make, processes, sample_people, writing
from negface.population.resuming import resumable_folder


def contents(root) -> dict[str, str]:
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(root.rglob("*")) if path.is_file()}


def test_a_population_opens_as_a_dataset_with_its_truth(tmp_path):
    make(tmp_path / "people", people=2, images=2, size=48, seed=5, workers=1)
    data = datasets.open(tmp_path / "people")
    rows = [json.loads(line) for line in (tmp_path / "people/labels.jsonl").read_text().splitlines()]
    assert len(data) == len(rows) == 4
    assert [row["identity"] for row in rows] == ["s5-p000000"] * 2 + ["s5-p000001"] * 2
    people = sample_people(2, seed=5)
    for row in rows:
        assert Image.open(tmp_path / "people" / row["image"]).size == (48, 48)
        parsing = np.asarray(Image.open(tmp_path / "people" / row["parsing"]))
        assert parsing.shape == (48, 48)
        assert parsing.max() < len(CLASSES)
        assert np.shape(row["points68"]) == (68, 2)
        assert row["caption"].startswith("A ")
        expected = people.values[people.ids.index(row["identity"])]
        np.testing.assert_allclose([row["traits"][name] for name in TRAIT_NAMES], expected, atol=1e-6)


ASKED = {"people": 40, "images": 4, "size": 32, "seed": 1}


def written_people(root) -> set[str]:
    return {path.name for path in root.glob(".tmp-*/.rows/s*.jsonl")}


@pytest.mark.process
def test_killed_with_two_workers_and_gone_on_with_one_the_bytes_are_those_of_one_go(tmp_path, negface):
    make(tmp_path / "one", **ASKED, workers=1)
    command = ["population", "make", "--out", tmp_path / "two" / "people",
               *[word for name, value in ASKED.items() for word in (f"--{name}", value)], "--json", "-"]
    first = subprocess.Popen([sys.executable, "-m", "negface.cli.main", *map(str, command), "--workers", "2"],
                             stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        while not written_people(tmp_path / "two"):
            assert first.poll() is None
            time.sleep(0.01)
    finally:
        first.kill()
        first.wait()
    kept = written_people(tmp_path / "two")
    assert 1 <= len(kept) < ASKED["people"]
    assert not (tmp_path / "two" / "people").exists()
    code, out, _ = negface(*command, "--workers", 1)
    assert code == 0
    assert json.loads(out)["describes_real_people"] is False
    assert contents(tmp_path / "one") == contents(tmp_path / "two" / "people")
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["people"]


def test_people_already_written_are_not_rendered_again(tmp_path, monkeypatch):
    make(tmp_path / "whole", people=5, images=6, size=32, workers=1)
    rendered, real = [], writing._photograph

    def photographed(people, *arguments, **options):
        if len(rendered) == 3:
            raise KeyboardInterrupt
        rendered.extend(people.ids)
        return real(people, *arguments, **options)

    monkeypatch.setattr(writing, "_photograph", photographed)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "people", people=5, images=6, size=32, workers=1)
    assert not (tmp_path / "people").exists()
    rendered.append("second try")
    make(tmp_path / "people", people=5, images=6, size=32, workers=1)
    assert rendered[4:] == ["s0-p000003", "s0-p000004"]
    assert contents(tmp_path / "whole") == contents(tmp_path / "people")


def test_two_runs_never_write_one_folder(tmp_path):
    wanted = {"any": 1}
    with (resumable_folder(tmp_path / "out", wanted) as folder, pytest.raises(OutputError, match="another process"),
          resumable_folder(tmp_path / "out", wanted)):
        pass
    assert not folder.exists()


def test_bad_input_leaves_nothing_behind(tmp_path, negface):
    asked = ["population", "make", "--people", 1, "--images", 1, "--out", tmp_path / "out"]
    for wrong, complaint in ((["--size", 8], "size is 8"), (["--spread", "yaw=uniform,-90,5"], "low is -90"),
                             (["--spread", "yaw=uniform,3"], "give low and high"),
                             (["--spread", "yaw=often,3"], "unknown kind of spread 'often'"),
                             (["--spread", "jaw=uniform,0,5"], "did you mean 'yaw'"), (["--spread", "yaw"], "has no ="),
                             (["--workers", 1, "--codec", "webp"], "unknown image codec")):
        code, _, err = negface(*asked, *wrong)
        assert code == 2
        assert complaint in err
    assert list(tmp_path.iterdir()) == []


def test_spreads_shape_the_pictures_and_are_recorded(tmp_path, negface):
    code, out, _ = negface("population", "make", "--people", 2, "--images", 4, "--size", 32, "--out", tmp_path / "out",
                           "--spread", "yaw=uniform,40,41", "--spread", "mask=some,1,1,1", "--json", "-")
    assert code == 0
    card = json.loads((tmp_path / "out" / "population.json").read_text())
    assert card["spreads"] == {"yaw": ["uniform", 40, 41], "mask": ["some", 1, 1, 1]}
    assert json.loads(out)["spreads"] == card["spreads"]
    rows = [json.loads(line) for line in (tmp_path / "out" / "labels.jsonl").read_text().splitlines()]
    assert all(40 <= row["nuisances"]["yaw"] <= 41 and row["nuisances"]["mask"] == 1 for row in rows)


def test_work_in_processes_comes_back_in_the_order_of_its_jobs():
    """With threads and pipes in place of processes: the second hand is far slower than the first."""
    hands = {}
    for delay in (0.0, 0.02):
        mine, theirs = multiprocessing.Pipe()

        def work(job, delay=delay):
            time.sleep(delay)
            return job * job

        thread = threading.Thread(target=processes._serve, args=(theirs, work), daemon=True)
        thread.start()
        hands[mine] = thread
    assert list(processes._dealt(hands, iter(range(40)))) == [n * n for n in range(40)]
    for channel, thread in hands.items():
        channel.close()
        thread.join(5)
        assert not thread.is_alive()


def test_an_error_in_a_process_is_an_error_here():
    def work(job):
        raise ValueError("no such thing") if job else InputError("wrong", where="here")

    for job, kind, text in ((0, InputError, "here: wrong"), (1, IncompleteError, "ValueError: no such thing")):
        mine, theirs = multiprocessing.Pipe()
        threading.Thread(target=processes._serve, args=(theirs, work), daemon=True).start()
        with pytest.raises(kind, match=text):
            list(processes._dealt({mine: None}, iter([job])))
        mine.close()


def test_few_pictures_are_not_worth_a_process():
    assert processes.workers_for(8, None) == 1
    assert processes.workers_for(8, 3) == 3
    with pytest.raises(InputError, match="0 workers"):
        processes.workers_for(8, 0)


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        make(tmp_path, people=1, images=1)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


def test_the_sheet_command_draws_people_in_rows(tmp_path, negface):
    code, out, _ = negface("population", "sheet", "--people", 2, "--images", 3, "--size", 32, "--seed", 1,
                           "--out", tmp_path / "sheet.png", "--json", "-")
    assert code == 0
    assert json.loads(out)["people"] == 2
    assert Image.open(tmp_path / "sheet.png").size == (96, 64)


def test_zero_people_is_one_line_and_writes_nothing(tmp_path, negface):
    for verb in (["make", "--out", tmp_path / "out"], ["sheet", "--out", tmp_path / "out.png"]):
        code, _, err = negface("population", *verb, "--people", 0, "--images", 2)
        assert code == 2
        assert err == "negface: error: population: 0 people were asked for; ask for at least one\n"
    code, _, err = negface("population", "make", "--people", 1, "--images", 0, "--out", tmp_path / "out")
    assert code == 2
    assert "0 pictures" in err
    assert list(tmp_path.iterdir()) == []

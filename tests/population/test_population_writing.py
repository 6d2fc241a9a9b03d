"""A population on disk: opens as a dataset, carries its truth, does not depend on workers, complete or not at all."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from negface import datasets
from negface.foundation.errors import OutputError
from negface.population import CLASSES, TRAIT_NAMES, make, sample_people


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


def test_bytes_do_not_depend_on_the_number_of_workers(tmp_path, negface):
    make(tmp_path / "one", people=3, images=1, size=32, seed=1, workers=1)
    code, out, _ = negface("population", "make", "--out", tmp_path / "two", "--people", 3, "--images", 1, "--size", 32,
                           "--seed", 1, "--workers", 2, "--json", "-")
    assert code == 0
    assert json.loads(out)["describes_real_people"] is False
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


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

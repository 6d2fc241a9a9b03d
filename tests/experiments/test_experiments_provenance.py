"""Nobody is measured by whom they taught: judges and students are kept from test people, before anything is made."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_experiment import TABLE
from tiny_run import SIZE

from negface import datasets
from negface.datasets import write_pairs
from negface.evaluation.provenance import people_text
from negface.experiments import run
from negface.experiments.assets import load as shipped
from negface.experiments.demo_faces import write_faces
from negface.experiments.grid import ExperimentRecipe, check_experiment, load_experiment
from negface.experiments.materials import Given, prepare
from negface.experiments.people import check_judge_training, keyed_split, read_split
from negface.experiments.references import Pictures
from negface.experiments.steps import Journal
from negface.experiments.students import train_student
from negface.foundation.errors import InputError, MismatchError
from negface.foundation.files import read_json, write_json
from negface.perception import Declaration, read_declaration
from negface.training.recipe import parse_recipe

ROOT = Path(__file__).parents[2]
FACES = {"known": {"start": 0, "people": 20}, "new": {"start": 100, "people": 10}, "ceiling": 200}
EXAM = {"names": ["frontal"], "start": 1000, "people": 20, "pairs": 20}


def recipe_of(**changes):
    return check_experiment(parse_recipe(ExperimentRecipe, {**TABLE, **changes}, "test"))


def taught(judge: Path, folder: Path, *names: str) -> Path:
    """A copy of a judge that says whom it was trained on."""
    shutil.copy(judge, folder / "judge.onnx")
    declared = {**read_json(Path(f"{judge}.json")), "trained_on": people_text(names)}
    write_json(folder / "judge.onnx.json", declared)
    return folder / "judge.onnx"


def refused(recipe, given, out):
    with pytest.raises(MismatchError) as found:
        prepare(recipe, given, Journal(out, lambda _: None))
    assert not out.exists(), "nothing was rendered or embedded"
    return str(found.value)


def test_a_run_refuses_a_judge_that_was_trained_on_people_of_the_faces(world, recipe, setup, tmp_path):
    people = recipe().people
    split = keyed_split(datasets.open(world["faces"]).identities, people.train_share, people.seed)
    judge = taught(world["judge"], tmp_path, *split.test[:2])
    with pytest.raises(MismatchError, match="judge was trained on 2 of the . people of the tests: p"):
        run(recipe(), setup(judge=judge))
    assert not setup().out.exists()


def test_an_experiment_refuses_a_judge_that_was_trained_on_people_of_the_faces_or_a_benchmark(world, tmp_path):
    drawn = tmp_path / "benchmark"
    write_faces(drawn, range(900, 902), 2, seed=0, size=SIZE)
    first, second, third, _ = sorted(path.relative_to(drawn).as_posix() for path in drawn.rglob("*.*"))
    write_pairs(drawn / "pairs.csv", [first, second, first, third], np.array([True, False]))
    (tmp_path / "model").mkdir()
    plain = Given(model=tmp_path / "model", **world, threads=1,
                  benchmarks={"drawn": drawn / "pairs.csv"})
    for name, said in (("p0003", "1 of the "), ("p0901", "1 of the 2 people of benchmark drawn: p0901")):
        given = replace(plain, judge=taught(world["judge"], tmp_path, name, "somebody"))
        assert said in refused(recipe_of(), given, tmp_path / f"run-{name}")


@pytest.mark.parametrize(("name", "what"), [
    ("s0-p000003", "population.known"), ("s0-p000109", "population.new"), ("s0-p000201", "the ceiling of seed 0"),
    ("s0-p001019", "[protocols]")])
def test_a_judge_that_knows_rendered_people_is_refused_before_they_are_rendered(name, what, world, tmp_path):
    (tmp_path / "model").mkdir()
    given = Given(model=tmp_path / "model", conditioner=world["conditioner"],
                  judge=taught(world["judge"], tmp_path, name), threads=1)
    said = refused(recipe_of(population=FACES, protocols=EXAM), given, tmp_path / "run")
    assert f"people of {what}: {name}" in said


def test_a_judge_that_is_forced_is_told_of_and_one_that_names_nobody_too():
    groups = {"the tests": ["a", "b"], "the generator's training": ["c"]}
    judge = Declaration(name="judge", trained_on=people_text(["b", "x"]))
    with pytest.raises(MismatchError, match="1 of the 2 people of the tests: b"):
        check_judge_training(judge, groups)
    assert check_judge_training(judge, groups, force=True) == ["the judge was trained on 1 of the people of the tests"]
    (said,) = check_judge_training(replace(judge, trained_on="MS1M"), groups)
    assert "no names of those it was trained on (MS1M): it was not checked" in said


def test_the_shipped_judge_knows_nobody_of_the_shipped_recipes_and_the_demo():
    judge = read_declaration(Path(f"{shipped('judge')}.json"))
    assert "[s2026-p" in judge.trained_on
    for path in sorted((ROOT / "recipes").glob("experiment-*.toml")):
        assert check_judge_training(judge, {part.what: part.people for part in load_experiment(path).parts()}) == []
    people = shipped("people")
    named = [line.split(",")[0] for line in people.read_text().splitlines()[1:]]
    assert check_judge_training(judge, read_split(people, named).groups()) == []


def test_a_student_of_a_benchmarks_people_is_refused_before_it_is_trained(tmp_path):
    write_faces(tmp_path / "faces", range(4), 3, seed=0, size=SIZE)
    student = recipe_of().student
    with pytest.raises(MismatchError, match="student was trained on 1 of the 2 people"):
        train_student(student, Pictures(tmp_path / "faces", None, {}), tmp_path / "student", seed=0,
                      held_out=["p0002", "p0777"], say=lambda _: None)
    assert not (tmp_path / "student").exists()


@pytest.mark.parametrize(("faces", "exam", "said"), [
    ({"ceiling": 19}, {}, "population.known and the ceiling of seed 0 share people 19 to 19 of population 0"),
    ({"ceiling": 97}, {}, "population.new and the ceiling of seed 0 share people 100 to 100"),
    ({"ceiling": 996}, {}, r"the ceiling of seed 1 and \[protocols\] share people 1000 to 1003"),
    ({}, {"start": 15}, r"population.known and \[protocols\] share people 15 to 19"),
])
def test_people_of_one_part_of_an_experiment_are_in_no_other(faces, exam, said):
    grid = [{**TABLE["grid"][0], "seeds": [0, 1]}]
    with pytest.raises(InputError, match=said):
        recipe_of(population={**FACES, **faces}, protocols={**EXAM, **exam}, grid=grid)
    other = {**EXAM, **exam, "seed": 5}
    if exam:
        assert recipe_of(population={**FACES, **faces}, protocols=other, grid=grid).parts()


def test_people_of_a_ceiling_that_nobody_asked_for_are_free():
    recipe = recipe_of(population={**FACES, "ceiling": 0}, references=["floor"])
    assert [part.what for part in recipe.parts()] == ["population.known", "population.new"]
    assert json.dumps(recipe.parts()[0].people[:2]) == '["s0-p000000", "s0-p000001"]'

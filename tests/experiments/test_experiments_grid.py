"""An experiment goes from a grid to one table and one page; a cell is kept as long as what decides it is the same."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_experiment import TABLE, write_model
from tiny_run import SIZE

from negface import datasets
from negface.datasets import write_pairs
from negface.experiments.conduct import ExperimentSetup, experiment
from negface.experiments.demo_faces import write_faces
from negface.experiments.grid import ExperimentRecipe, Range, check_experiment, load_experiment, variation_of
from negface.experiments.materials import Given
from negface.experiments.recipe import strategy
from negface.foundation.errors import IncompleteError, InputError, MismatchError
from negface.foundation.files import read_json
from negface.foundation.hashing import sha256_json
from negface.training.recipe import parse_recipe

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("experiment-*.toml"))


def recipe_of(**changes):
    return check_experiment(parse_recipe(ExperimentRecipe, {**TABLE, **changes}, "test"))


def blocks(*tables):
    return recipe_of(grid=list(tables), references=[])


def write_benchmark(folder, people, source):
    """A pair list of drawn people, half of its 20 pairs genuine."""
    write_faces(folder, people, 3, seed=source, size=SIZE)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
    own = [names[start:start + 3] for start in range(0, len(names), 3)]
    same = np.arange(20) % 2 == 0
    pairs = [(own[k % 8][0], own[k % 8][1]) if genuine else (own[k % 8][0], own[(k + 3) % 8][2])
             for k, genuine in enumerate(same)]
    write_pairs(folder / "pairs.csv", [name for pair in pairs for name in pair], same)
    return folder / "pairs.csv"


@pytest.fixture(scope="module")
def given(world, tmp_path_factory):
    root = tmp_path_factory.mktemp("given")
    return Given(model=write_model(root / "model", 24), **world, threads=1,
                 benchmarks={"drawn": write_benchmark(root / "benchmark", range(900, 908), 0)})


def conduct(out, given, recipe=None, **options):
    return experiment(recipe or recipe_of(), ExperimentSetup(out, given, say=lambda _: None,
                                                             command="negface experiment tiny.toml", **options))


@pytest.fixture(scope="module")
def compared(given, tmp_path_factory):
    """A finished experiment, shared: its folder and its summary. Not to be changed; ``copied`` gives a copy."""
    out = tmp_path_factory.mktemp("compared") / "run"
    return out, conduct(out, given)


@pytest.fixture
def copied(compared, tmp_path):
    shutil.copytree(compared[0], tmp_path / "run")
    return tmp_path / "run"


def table(out):
    lines = [line for line in (out / "results.csv").read_text().splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines))


def cell(out, name):
    return next(path for path in (out / "cells").iterdir() if path.is_dir() and f"-{name}-" in path.name)


def test_an_experiment_ends_in_a_table_with_the_columns_of_the_contract(compared):
    out, summary = compared
    rows = table(out)
    assert [(row["strategy"], row["weight"]) for row in rows] == [
        ("baseline", "0"), ("far", "0.5"), ("far", "2"), ("floor", "0"), ("ceiling", "0")]
    assert {"strategy", "weight", "seed", "contexts", "scheduler", "variation", "fdr", "fdr_low", "fdr_high",
            "diversity", "adherence", "student_accuracy", "student_accuracy_low", "student_accuracy_high",
            "student_eer", "student_accuracy:drawn"} <= set(rows[0])
    assert all(row["student_accuracy"] for row in rows)
    assert rows[0]["fdr"] != rows[1]["fdr"] != rows[2]["fdr"]
    assert summary["n_cells"] == summary["n_wanted"] == 5


def test_the_page_opens_with_the_curves_and_the_answer(compared):
    page = (compared[0] / "report.html").read_text()
    lead = compared[1]["lead"]
    assert page.index(lead["sentence"][:30]) < page.index('id="compared"') < page.index('id="s1"')
    compared_part = page[page.index('id="compared"'):page.index('id="s1"')]
    assert compared_part.count("<svg") >= 2
    assert "At equal w, against the baseline" in compared_part


def test_the_page_shows_the_nearest_of_the_generators_own_people(compared):
    out, _ = compared
    cells = {cell["strategy"]: cell for cell in json.loads((out / "results.json").read_text())["cells"]}
    for name in ("baseline", "far", "floor"):
        assert all((out / pair["b"]).is_file() for pair in cells[name]["leakage_pairs"])
        assert cells[name]["leakage_pairs"]
    assert cells["ceiling"]["leakage_pairs"] == []
    assert "Nearest training people" in (out / "report.html").read_text()


def test_a_second_run_makes_nothing(copied, given):
    assert conduct(copied, given)["steps_made"] == 0


def test_a_deleted_cell_is_remade_alone_and_to_the_same_row(copied, given):
    before = table(copied)
    gone = cell(copied, "far-w2")
    for path in gone.parent.glob(f"{gone.name}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert conduct(copied, given)["steps_made"] == 4
    timing = {"images_per_second", "student_seconds", "student_images_per_second"}
    assert [{k: v for k, v in row.items() if k not in timing} for row in table(copied)] == [
        {k: v for k, v in row.items() if k not in timing} for row in before]


def test_a_wider_grid_keeps_its_cells_and_another_student_keeps_the_pictures(copied, given):
    taught = {**TABLE["student"], "flip": True}
    summary = conduct(copied, given, recipe_of(student=taught, references=[], grid=[
        {**TABLE["grid"][0], "strategies": {"baseline": [0.0], "far": [0.5]}}, {
            "sources": ["pca"], "strategies": {"null-learned": [0.5]}, "students": False}]))
    # Two cells train and examine anew, the third draws and measures.
    assert summary["steps_made"] == 2 * 2 + 2
    assert [row["student_accuracy"] != "" for row in table(copied)] == [True, True, False]


def test_without_students_nothing_is_examined_and_no_benchmark_is_asked_for(given, tmp_path):
    summary = conduct(tmp_path / "run", replace(given, benchmarks=None), recipe_of(grid=[
        {**TABLE["grid"][0], "strategies": {"baseline": [0.0], "random-per-image": [0.5]},
         "variations": ["none", "angular-0.6"]}]), students=False)
    assert summary["n_cells"] == 4
    assert all(row["student_accuracy"] is None for row in summary["table"])
    fdr = [row["fdr"] for row in summary["table"]]
    assert len(set(fdr)) == 4, "a variation or a new negative for each image changes the pictures"


def test_the_floor_has_the_baselines_pictures_under_other_names(compared):
    floor, plain = (datasets.open(cell(compared[0], name) / "dataset") for name in ("floor", "baseline"))
    assert sorted(map(floor.read, range(len(floor)))) == sorted(map(plain.read, range(len(plain))))
    assert np.bincount(floor.labels).tolist() == np.bincount(plain.labels).tolist()
    whose = {plain.read(row): label for row, label in enumerate(plain.labels.tolist())}
    assert [whose[floor.read(row)] for row in range(len(floor))] != floor.labels.tolist()


def test_the_ceiling_of_a_folder_are_the_people_the_generator_may_know(compared, world):
    training = read_json(cell(compared[0], "ceiling") / "training.json")["result"]
    assert training["n_identities"] == 8  # 70 % of 12 people
    assert training["n_images"] == 8 * 3


def test_a_student_that_diverges_is_set_aside_and_the_rest_is_measured(given, tmp_path):
    wild = {**TABLE["student"]["recipe"], "optimizer": "sgd"}
    wild["train"] = {**wild["train"], "learning_rate": 1e30, "epochs": 6}
    with pytest.raises(IncompleteError, match="2 of 2 cells failed"):
        conduct(tmp_path / "run", given, recipe_of(references=[], student={"recipe": wild}, grid=[
            {**TABLE["grid"][0], "strategies": {"baseline": [0.0], "far": [0.5]}}]))
    assert [bool(row["fdr"]) and not row["student_accuracy"] for row in table(tmp_path / "run")] == [True, True]


def test_a_benchmark_that_shares_people_with_the_generators_training_is_refused(given, tmp_path):
    shutil.copytree(given.model, tmp_path / "model")
    (tmp_path / "model" / "training.json").write_text(json.dumps({"identities": ["p0903", "p0001"]}))
    with pytest.raises(MismatchError, match="shares 1 people"):
        conduct(tmp_path / "run", replace(given, model=tmp_path / "model"))


def test_students_without_a_benchmark_are_refused_before_anything_is_drawn(given, tmp_path):
    with pytest.raises(InputError, match="nothing examines them"):
        conduct(tmp_path / "run", replace(given, benchmarks=None))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["model", "conditioner", "judge", "faces"])
def test_what_is_missing_is_refused_and_leaves_no_folder(given, tmp_path, name):
    with pytest.raises(InputError, match="nowhere"):
        conduct(tmp_path / "run", replace(given, **{name: tmp_path / "nowhere"}))
    assert not (tmp_path / "run").exists()


@pytest.mark.process
def test_two_processes_share_the_cells_and_give_the_same_table(given, compared, tmp_path):
    conduct(tmp_path / "run", given, workers=2)
    timing = {"images_per_second", "student_seconds", "student_images_per_second"}
    shared, alone = ([{k: v for k, v in row.items() if k not in timing} for row in table(out)]
                     for out in (tmp_path / "run", compared[0]))
    assert shared == alone


def test_a_block_is_a_product_and_equal_settings_are_one_cell():
    recipe = blocks(
        {"sources": ["pca"], "seeds": [0, 1], "strategies": {"baseline": [0.0], "far": [0.0, 0.5]}, "students": False},
        {"sources": ["pca"], "seeds": [1], "strategies": {"far": [0.5]}, "variations": ["none", "angular-0.6"],
         "schedulers": ["unipc", "ddim"]})
    found = recipe.settings()
    plain = [(c.seed, c.strategy.label, c.scheduler, c.variation) for c in found if not c.reference]
    assert len(plain) == len(set(plain)) == 4 + 3
    assert [c.student for c in found if not c.reference] == [True] * 4 + [False] * 3


@pytest.mark.parametrize(("changes", "said"), [
    ({"grid": [{"strategies": {"fra": [0.5]}}]}, "did you mean 'far'"),
    ({"grid": [{"strategies": {"far": [0.5]}, "sources": ["pac"]}]}, "did you mean 'pca'"),
    ({"grid": [{"strategies": {"far": [0.5]}, "variations": ["angular"]}]}, "unknown variation 'angular'"),
    ({"grid": [{"strategies": {"far": [0.5]}}]}, "no block with students has it"),
    ({"grid": [{"strategies": {"far": [0.5]}, "guidances": ["risin"]}]}, "did you mean 'rising'"),
    ({"grid": [{"strategies": {"far": [0.5]}, "guidances": ["constant@800-200"]}]}, "'800-200' is no interval"),
    ({"grid": [{"strategies": {"falling-far": [0.5]}, "guidances": ["rising"]}]}, "guided by falling"),
    ({"student": None}, "no section"),
    ({"sampling": {"bank": 4, "identities": 5}}, "at least sampling.identities"),
    ({"grids": []}, "did you mean 'grid'"),
])
def test_an_experiment_with_a_fault_is_refused_by_name(changes, said):
    with pytest.raises(InputError, match=said):
        recipe_of(**changes)


def test_a_variation_is_read_from_its_name():
    assert variation_of("none", 3) is None
    assert variation_of("angular-0.6-safe", 3) == {"name": "angular", "lower": 0.6, "safe": True, "seed": 3}
    assert variation_of("angular-1", 0)["lower"] == 1.0


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_experiment_in_the_repository_loads(path):
    recipe = load_experiment(path)
    assert len(recipe.settings()) > 5
    assert {0.0, 0.25, 0.5, 1.0, 2.0} <= {cell.strategy.weight for cell in recipe.settings()}


def smoke(recipe):
    """The recipe with everything that costs time made small: two strategies, four people, one epoch."""
    block = recipe.grid[0].model_copy(update={"seeds": (0,), "strategies": {"baseline": (0.0,), "far": (0.5,)}})
    train = recipe.student.recipe.train.model_copy(update={"epochs": 1, "batch": 4, "warmup": 0})
    faces = recipe.population and recipe.population.model_copy(update={
        "images": 2, "known": Range(start=4000, people=4), "new": Range(start=6000, people=2)})
    exam = recipe.protocols and recipe.protocols.model_copy(update={"names": ("frontal",), "people": 20, "pairs": 20})
    return recipe.model_copy(update={
        "grid": (block,), "population": faces, "protocols": exam, "model": None, "conditioner": None, "judge": None,
        "sampling": recipe.sampling.model_copy(update={"bank": 6, "identities": 4, "images": 2, "steps": 2, "batch": 8,
                                                       "device": "cpu"}),
        "measuring": recipe.measuring.model_copy(update={"bootstrap": 20, "resize": True}),
        "student": recipe.student.model_copy(update={"recipe": recipe.student.recipe.model_copy(update={
            "train": train})})})


@pytest.mark.parametrize("path", [
    pytest.param(path, id=path.stem, marks=[] if path.stem == "experiment-population" else [pytest.mark.slow])
    for path in RECIPES])
def test_every_experiment_in_the_repository_runs_in_a_smoke_form(path, given, tmp_path):
    recipe = smoke(load_experiment(path))
    if recipe.population is not None:
        given = replace(given, faces=None, benchmarks=None)
    summary = conduct(tmp_path / "run", given, recipe)
    assert [row["strategy"] for row in summary["table"]] == ["baseline", "far", "floor", "ceiling"]
    assert all(row["student_accuracy"] is not None for row in summary["table"])


def test_the_plan_names_the_cells_and_makes_nothing(given, tmp_path):
    from negface.experiments.costs import plan_text, planned

    found = planned(recipe_of(), given, workers=2, seconds=0.2)
    assert (found["n_cells"], found["n_students"], found["n_images"]) == (5, 5, 3 * 8)
    assert found["seconds"] == pytest.approx(sum(cell["seconds"] for cell in found["cells"]) / 2)
    assert "pca-seed0-unipc-far-w0.5" in plan_text(found)
    assert planned(recipe_of(), given, students=False, seconds=0.2)["n_cells"] == 3


def test_the_command_resumes_an_experiment(copied, given, negface, tmp_path):
    (tmp_path / "tiny.toml").write_text(json_toml(TABLE))
    arguments = ["experiment", tmp_path / "tiny.toml", "--out", copied, "--model", given.model, "--conditioner",
                 given.conditioner, "--judge", given.judge, "--faces", given.faces, "--threads", 1, "--benchmark",
                 f"drawn={given.benchmarks['drawn']}", "--json", "-"]
    code, out, err = negface(*arguments)
    assert code == 0, err
    assert json.loads(out)["steps_made"] == 0
    code, _, err = negface(*arguments[:-4], "--benchmark", "drawn")
    assert (code, "is not NAME=FILE" in err) == (2, True)


def json_toml(table):
    """A recipe as TOML: inline tables are JSON with other separators."""
    def value(item):
        if isinstance(item, dict):
            return "{" + ", ".join(f"{key} = {value(each)}" for key, each in item.items()) + "}"
        return "[" + ", ".join(map(value, item)) + "]" if isinstance(item, list) else json.dumps(item)

    return "".join(f"{key} = {value(item)}\n" for key, item in table.items())


def settings_hash(settings):
    """What names and decides cells: folder's start, rule, negatives, seeds, in order."""
    return sha256_json([{"label": c.label, "name": c.name, "student": c.student, "rule": c.strategy.rule.to_dict(),
                         "neg": c.strategy.negatives, "scope": c.strategy.scope,
                         "row": [c.strategy.name, c.strategy.weight, c.seed, c.source, c.scheduler, c.variation]}
                        for c in settings])


def test_the_cells_of_the_population_experiment_are_what_they_were():
    """Cells are hours of work: their names and what decides them may not change under a recipe that did not."""
    recipe = load_experiment(ROOT / "recipes" / "experiment-population.toml")
    first = recipe.model_copy(update={"grid": recipe.grid[:5]}).settings()
    assert settings_hash(first) == "2ab7e732b437cfadbd2590d7771ed63774fa20e33037f3435561404c9e4dd576"
    assert [cell for cell in recipe.settings() if cell in set(first)] == first, "later blocks do not move them"
    assert first[1].label == "pca-seed0-unipc-far-w0.5"


def test_a_guidance_is_an_axis_and_its_names_are_those_of_strategies():
    recipe = blocks({"strategies": {"baseline": [0.0], "far": [0.5]}, "students": False,
                     "guidances": ["constant", "rising", "falling@0-500", "constant@200-800"]},
                    {"strategies": {"far": [0.5], "adaptive-far": [0.5], "far@200-800": [0.5]}, "students": False})
    assert [(cell.strategy.label, cell.strategy.guidance, str(cell.strategy.rule)) for cell in recipe.settings()] == [
        ("baseline", "none", "none()"), ("far-w0.5", "constant", "constant(0.5)"),
        ("adaptive-far-w0.5", "rising", "rising(0.5)"),
        ("falling-far@0-500-w0.5", "falling@0-500", "falling(0.5).on(0, 500)"),
        ("far@200-800-w0.5", "constant@200-800", "constant(0.5).on(200, 800)")]


def test_a_new_negative_for_every_image_can_be_steered_over_time():
    rising = strategy("adaptive-random-per-image", 1.0)
    assert (rising.negatives, rising.scope, rising.guidance) == ("random", "image", "rising")
    assert strategy("far@0-1000", 1.0) == strategy("far", 1.0), "everywhere is no interval"


def test_a_guidance_decides_the_pictures_and_stands_in_the_table(given, tmp_path):
    summary = conduct(tmp_path / "run", replace(given, benchmarks=None), recipe_of(references=[], grid=[{
        "strategies": {"far": [2.0]}, "guidances": ["constant", "rising@900-1000"]}]), students=False)
    rows = summary["table"]
    assert [(row["strategy"], row["guidance"]) for row in rows] == [
        ("far", "constant"), ("adaptive-far@900-1000", "rising@900-1000")]
    assert rows[0]["fdr"] != rows[1]["fdr"]
    assert [row["guidance"] for row in table(tmp_path / "run")] == ["constant", "rising@900-1000"]


def test_the_plan_counts_the_cells_of_every_guidance_and_what_their_steps_cost(given):
    from negface.experiments.costs import planned, steered_share

    recipe = recipe_of(references=[], grid=[{"strategies": {"baseline": [0.0], "far": [0.5, 1.0]}, "guidances": [
        "constant", "rising", "constant@200-800"], "students": False}])
    assert planned(recipe, given, students=False, seconds=0.2)["n_cells"] == 1 + 2 * 3
    share = {cell.strategy.name: steered_share(cell, 100) for cell in recipe.settings()}
    assert (share["baseline"], share["far"]) == (0, 1)
    assert share["far@200-800"] == pytest.approx(0.6, abs=0.02)

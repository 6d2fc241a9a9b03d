"""Recipes are checked at the door, splits are by person, and paired ratios agree with the measured intervals."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

from negface.evaluation import separability
from negface.evaluation.bootstrap import multiplicities
from negface.experiments.paired import ratio, replicates
from negface.experiments.people import keyed_split, read_split
from negface.experiments.recipe import load_run_recipe, strategy
from negface.experiments.steps import Journal
from negface.foundation.errors import FormatError, InputError

ROOT = Path(__file__).parents[2]
RECIPES = [*sorted((ROOT / "recipes").glob("real-*.toml")),
           *sorted((ROOT / "src/negface/experiments").glob("demo*.toml"))]
NAMES = tuple(f"p{number}" for number in range(20))


def people(spread: float, seed: int, n: int = 9):
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(n), random.integers(2, 5, n))
    return random.standard_normal((n, 8))[labels] + spread * random.standard_normal((len(labels), 8)), labels


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_in_the_repository_loads(path):
    assert load_run_recipe(path).grid()


def test_the_recipe_of_the_issue_says_what_the_issue_says():
    recipe = load_run_recipe(next(path for path in RECIPES if path.stem == "real-lfw64"))
    assert dict(recipe.contexts) == {"authentic": (0,), "pca": (0, 1, 2), "uniform": (0,)}
    assert set(recipe.strategies) == {"baseline", "null-learned", "close", "mid", "far", "random", "adaptive-far"}
    assert set(recipe.strategies["far"]) == {0.25, 0.5, 1.0, 2.0}
    assert recipe.strategies["adaptive-far"] == (1.0,)
    drawn = recipe.sampling
    assert (drawn.bank, drawn.identities, drawn.images, drawn.steps, drawn.scheduler) == (1000, 50, 10, 20, "dpmpp")


@pytest.mark.parametrize(("changes", "said"), [
    ({"contexts": {"autentic": [0]}}, "did you mean 'authentic'"),
    ({"strategies": {"fra": [0.5]}}, "did you mean 'far'"),
    ({"strategies": {"none": [0.5]}}, "unknown strategy 'none'"),
    ({"strategies": {}}, "names nothing"),
    ({"strategies": {"far": [0.5, 0.5]}}, "lists a value twice"),
    ({"strategies": {"baseline": [0.0, 0.5]}}, "stands twice"),
    ({"sampling": {"bank": 4, "identities": 5}}, "at least sampling.identities"),
    ({"samplng": {}}, "did you mean 'sampling'"),
])
def test_a_recipe_with_a_fault_is_refused_by_name(recipe, changes, said):
    with pytest.raises(InputError, match=said):
        recipe(**changes)


def test_a_strategy_names_its_negatives_and_its_rule():
    assert strategy("baseline", 0.0).rule.branches(500) == ("positive",)
    assert str(strategy("far", 0.25).rule) == "constant(0.25)"
    assert str(strategy("adaptive-far", 1.0).rule) == "rising(1)"
    assert strategy("falling-null-learned", 1.0).negatives == "null-learned"
    assert (strategy("far", 0.5).label, strategy("baseline", 0).label) == ("far-w0.5", "baseline")


def test_a_keyed_split_takes_its_share_and_does_not_depend_on_order():
    split = keyed_split(NAMES, 0.7, 0)
    assert (len(split.train), len(split.test)) == (14, 6)
    assert set(keyed_split(NAMES[::-1], 0.7, 0).train) == set(split.train)
    assert set(keyed_split(NAMES, 0.7, 1).train) != set(split.train)
    with pytest.raises(InputError, match="cannot be split"):
        keyed_split(NAMES[:3], 0.7, 0)


def test_a_split_survives_its_table(tmp_path):
    split = keyed_split(NAMES, 0.5, 0)
    split.save(tmp_path / "people.csv")
    again = read_split(tmp_path / "people.csv", (*NAMES, "nobody"))
    assert (again.train, again.test, again.left_out) == (split.train, split.test, ("nobody",))


@pytest.mark.parametrize(("text", "said"), [
    ("name,split\np1,train\n", "no columns"),
    ("person,split\np1,train\np1,test\n", "stands in two splits"),
    ("person,split\np1,train\n", "names nobody of the faces as 'test'"),
])
def test_a_table_of_people_with_a_fault_is_refused(tmp_path, text, said):
    (tmp_path / "people.csv").write_text(text)
    with pytest.raises((FormatError, InputError), match=said):
        read_split(tmp_path / "people.csv", NAMES)


def test_paired_replicates_give_the_measured_estimate_and_interval():
    vectors, labels = people(1.0, 0)
    measured = separability(vectors, labels, bootstrap=200, seed=3).to_dict()
    found = replicates(vectors, labels, bootstrap=200, seed=3)
    assert found.fdr[0] == pytest.approx(measured["fdr"], rel=1e-5)
    assert found.diversity[0] == pytest.approx(measured["genuine_std"], rel=1e-5)
    low, high = np.quantile(found.fdr[1:], [0.025, 0.975])
    assert (low, high) == pytest.approx((measured["fdr_low"], measured["fdr_high"]), rel=1e-4)


def test_paired_replicates_equal_the_slow_way():
    """Pair by pair: images of a and b weigh m_a m_b, of one person m_a, and copies are never impostors."""
    vectors, labels = people(1.0, 1, n=5)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = replicates(vectors, labels, bootstrap=4, seed=0)
    for column, drawn in enumerate(multiplicities(5, 4, 0).T, 1):
        genuine, impostor = [], []
        for i in range(len(labels)):
            for j in range(i):
                a, b = labels[i], labels[j]
                score = float(unit[i] @ unit[j])
                (genuine if a == b else impostor).extend([score] * int(drawn[a] if a == b else drawn[a] * drawn[b]))
        fdr = (np.mean(genuine) - np.mean(impostor)) ** 2 / (np.var(genuine) + np.var(impostor))
        assert found.fdr[column] == pytest.approx(fdr, rel=1e-5)


def test_a_paired_ratio_is_tighter_than_the_two_intervals_are():
    vectors, labels = people(0.8, 2, n=30)
    worse = vectors + 0.3 * np.random.default_rng(9).standard_normal(vectors.shape)
    better, plain = (replicates(each, labels, bootstrap=300, seed=0) for each in (vectors, worse))
    estimate, low, high = ratio(better.fdr, plain.fdr)
    assert low < estimate < high
    apart = np.quantile(better.fdr[1:], 0.975) / np.quantile(plain.fdr[1:], 0.025)
    assert high < apart
    assert ratio(plain.fdr, plain.fdr) == (1.0, 1.0, 1.0)
    assert ratio(plain.fdr, np.zeros_like(plain.fdr)) == (None, None, None)


def test_a_step_is_made_again_only_when_its_inputs_or_outputs_are_gone(tmp_path):
    journal, output = Journal(tmp_path, lambda _: None), tmp_path / "out.txt"
    calls = []

    def make():
        calls.append(1)
        output.write_text("made")
        return {"n": len(calls)}

    assert journal.step("a/b", {"x": 1}, make, [output]) == {"n": 1}
    assert journal.step("a/b", {"x": 1}, make, [output]) == {"n": 1}
    assert journal.step("a/b", {"x": 2}, make, [output]) == {"n": 2}
    output.unlink()
    assert journal.step("a/b", {"x": 2}, make, [output]) == {"n": 3}
    journal.path("a/b").write_text("{")
    assert journal.step("a/b", {"x": 2}, make, [output]) == {"n": 4}
    assert (len(journal.made), len(journal.kept)) == (4, 1)


def test_a_step_that_fails_leaves_no_record(tmp_path):
    journal = Journal(tmp_path, lambda _: None)
    with pytest.raises(ZeroDivisionError):
        journal.step("a", {}, lambda: {"n": 1 / 0})
    assert not journal.path("a").exists()


def test_recipes_name_no_place_on_any_machine():
    for path in RECIPES:
        assert not [value for value in _strings(tomllib.loads(path.read_text())) if value.startswith(("/", "~"))]


def _strings(value):
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [item for each in items for item in _strings(each)] + ([value] if isinstance(value, str) else [])

"""Intervals and p-values over seeds: what another run would change is in them, and replicates suffice for the table."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import t, ttest_1samp
from tiny_experiment import TABLE

from negface.experiments import draws, outcome
from negface.experiments.compare import against, to_baseline
from negface.experiments.grid import ExperimentRecipe, Setting
from negface.experiments.intervals import Estimate, Measured, estimate, holm, over_seeds, pooled, student_t
from negface.experiments.paired import replicates
from negface.experiments.recipe import Strategy
from negface.experiments.stages import Bench, read_replicates
from negface.experiments.steps import Journal
from negface.experiments.students import accuracy_replicates
from negface.perception import read_embeddings, write_embeddings

R = 400
SEEDS = (0, 1, 2)


def fixed(values, metric="student_accuracy", name="far"):
    """Cells of as many seeds without any error of folds."""
    return [Measured(name, 0.5, seed, {metric: np.full(1 + R, float(value))}) for seed, value in enumerate(values)]


def experiment(random, effect, run=0.5, folds=0.1, same_folds=True):
    """Baseline and far over three seeds: every student has an error of its run, and one of the folds, which is another
    for each setting, and for each seed too unless they are the ``same_folds``."""
    cells = []
    for name, weight, mean in (("baseline", 0.0, 0.0), ("far", 0.5, effect)):
        noise = folds * random.standard_normal((len(SEEDS), R + 1))
        for seed in SEEDS:
            own = noise[0 if same_folds else seed]
            value = mean + run * random.standard_normal() + own[0]
            cells.append(Measured(name, weight, seed, {"student_accuracy": np.append(value, value + own[1:])}))
    return against(cells, "student_accuracy", to_baseline, ratio=False)["far", 0.5]


def test_student_t_is_scipys():
    points = np.linspace(-30, 30, 101)
    for freedom in range(1, 8):
        np.testing.assert_allclose(student_t(points, freedom), t.cdf(points, freedom), atol=1e-14)


@pytest.mark.parametrize("values", [(1.0, 2.0, 4.0), (1.0, 1.5), (0.2, 0.1, 0.4, 0.3, 0.9)])
def test_without_error_of_the_folds_it_is_the_t_interval_over_runs(values):
    found = estimate(over_seeds(fixed(values), "student_accuracy", range(len(values))), len(values), 0.0)
    exact = ttest_1samp(values, 0.0)
    low, high = exact.confidence_interval()
    assert (found.low, found.value, found.high) == pytest.approx((low, np.mean(values), high), rel=1e-6)
    assert found.p == pytest.approx((R * exact.pvalue + 2) / (R + 1))
    assert found.runs == len(values)


def test_a_difference_has_the_error_of_the_seeds_own_differences():
    far, plain = (3.0, 5.0, 9.0), (2.0, 3.9, 8.3)
    cells = [*fixed(far), *fixed(plain, name="baseline")]
    cells = [Measured(cell.name, 0.5 * (cell.name == "far"), cell.seed, cell.values) for cell in cells]
    found = against(cells, "student_accuracy", to_baseline, ratio=False)["far", 0.5]
    low, high = ttest_1samp(np.subtract(far, plain), 0.0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-6)
    ratio = against(cells, "student_accuracy", to_baseline, ratio=True)["far", 0.5]
    # The delta method of a ratio of means (Cochran 1977, eq. 2.40)
    errors = (np.array(far) - ratio.value * np.array(plain)) / np.mean(plain)
    half = t.ppf(0.975, 2) * np.sqrt((errors**2).sum() / (3 * 2))
    assert (ratio.high - ratio.low) / 2 == pytest.approx(half, rel=1e-3)


def test_seeds_that_agree_leave_the_interval_of_the_folds_and_seeds_that_differ_widen_it():
    noise = np.random.default_rng(0).standard_normal(R)
    same, apart = ([Measured("far", 0.5, seed, {"student_accuracy": np.append(value, value + 0.1 * noise)})
                    for seed, value in enumerate(values)] for values in ((2.0, 2.0, 2.0), (1.9, 2.0, 2.1)))
    single = estimate(over_seeds(same[:1], "student_accuracy", (0,)), 1)
    agreeing, differing = (estimate(over_seeds(cells, "student_accuracy", SEEDS), 3) for cells in (same, apart))
    assert (agreeing.low, agreeing.high) == pytest.approx((single.low, single.high))
    half = (differing.high - differing.low) / 2
    assert half > t.ppf(0.975, 2) * 0.1 / np.sqrt(3) > (single.high - single.low) / 2
    assert over_seeds(same, "student_accuracy", (0, 7)) is None


@pytest.mark.parametrize(("run", "folds", "same_folds"), [(0.5, 0.1, True), (0.1, 0.5, True), (0.3, 0.3, False)])
def test_few_of_many_null_tests_are_sure_whatever_makes_the_noise(run, folds, same_folds):
    sure = sum(experiment(np.random.default_rng(trial), 0.0, run, folds, same_folds).sure for trial in range(200))
    assert sure <= 12  # 6 %


def test_a_planted_effect_is_found_over_three_runs():
    found = [experiment(np.random.default_rng(trial), 6.0) for trial in range(40)]
    assert sum(item.sure for item in found) >= 34
    assert sum(item.low <= 6.0 <= item.high for item in found) >= 36


def test_one_run_of_a_student_is_not_tested_and_one_set_is():
    noise = 0.01 * np.random.default_rng(0).standard_normal(R)
    cells = [Measured(name, weight, 0, dict.fromkeys(("student_accuracy", "fdr"), np.append(value, value + noise)))
             for name, weight, value in (("baseline", 0.0, 1.0), ("far", 0.5, 2.0))]
    student, separable = (against(cells, metric, to_baseline, ratio=False)["far", 0.5]
                          for metric in ("student_accuracy", "fdr"))
    assert student.p is None
    assert student.low is not None
    assert not student.sure
    assert separable.sure
    assert separable.limit
    said = outcome._sureties(cells)
    assert said == ["FDR against the baseline, surely higher: far (w 0.5).", "Student accuracy against the baseline, "
                    "not tested, for want of a second seed: far (w 0.5)."]


SETTINGS = (("baseline", 0.0), ("far", 0.5), ("null-learned", 0.5), ("random", 0.5), ("close", 0.5))


def block(random, effects, run=0.5, folds=0.1, seeds=SEEDS):
    """Five settings over three seeds; a seed (its people, its student's start) moves all settings alike."""
    shared, cells = dict(zip(seeds, random.standard_normal(len(seeds)), strict=True)), []
    for (name, weight), effect in zip(SETTINGS, effects, strict=True):
        noise = folds * random.standard_normal(R + 1)
        for seed in seeds:
            value = effect + shared[seed] + run * random.standard_normal() + noise[0]
            cells.append(Measured(name, weight, seed, {"student_accuracy": np.append(value, value + noise[1:])}))
    return cells


def test_the_spread_of_runs_is_the_residual_of_settings_and_seeds():
    values = np.random.default_rng(0).standard_normal((5, 3))
    design = np.concatenate([np.repeat(np.eye(5), 3, axis=0), np.tile(np.eye(3), (5, 1))], axis=1)
    solution, _, rank, _ = np.linalg.lstsq(design, values.ravel())
    left = ((values.ravel() - design @ solution) ** 2).sum()
    found = pooled(values)
    assert found.freedom == 15 - rank == 8
    assert found.deviation == pytest.approx(np.sqrt(left / 8))
    assert pooled(values[:1]) is None
    assert pooled(values[:, :1]) is None


def test_of_five_settings_that_teach_alike_hardly_ever_is_one_said_to_be_better():
    sure = 0
    for trial in range(200):
        found = against(block(np.random.default_rng(trial), [0.0] * 5), "student_accuracy", to_baseline, ratio=False)
        sure += any(item.sure for item in found.values())
    assert sure <= 14  # 7 % of whole tables


def test_a_difference_that_three_runs_alone_would_not_show_is_found_by_the_spread_of_all_settings():
    together = alone = 0
    for trial in range(40):
        cells = block(np.random.default_rng(trial), [0.0, 2.0, 0.0, 0.0, 0.0])
        together += against(cells, "student_accuracy", to_baseline, ratio=False)["far", 0.5].sure
        pair = [cell for cell in cells if cell.name in ("baseline", "far")]
        alone += against(pair, "student_accuracy", to_baseline, ratio=False)["far", 0.5].sure
    assert together >= 30
    assert together > alone + 5  # although its p is multiplied by four


def test_one_run_is_tested_by_the_spread_of_the_others():
    cells = block(np.random.default_rng(0), [0.0, 0.0, 0.0, 0.0, 0.0])
    value = cells[0].values["student_accuracy"][0] - 9.0
    one = Measured("far", 2.0, 0, {"student_accuracy": np.full(R + 1, value)})
    found = against([*cells, one], "student_accuracy", to_baseline, ratio=False)
    assert found["far", 2.0].sure
    assert found["far", 2.0].runs == 1
    wide, narrow = (found[place].high - found[place].low for place in (("far", 2.0), ("far", 0.5)))
    assert wide > narrow


def test_replicates_are_enough_for_the_rows_of_the_largest_table():
    tiny = ExperimentRecipe.model_validate(TABLE)
    assert draws.count_of(tiny) == draws.FEWEST
    wide = tiny.model_copy(update={"grid": (tiny.grid[0].model_copy(update={
        "strategies": {"baseline": (0.0,), "far": tuple(0.01 * step for step in range(1, 400))}}),)})
    rows = 399
    count = draws.count_of(wide)
    assert 2 * rows / (count + 1) < 0.05
    least = estimate(np.append(1.0, np.ones(count)), null=0.0)
    adjusted = holm({(str(row), 0.0): least for row in range(rows)})
    assert all(item.sure for item in adjusted.values())
    assert outcome._p(adjusted["0", 0.0]).startswith("≤ 0.0")
    none = tiny.model_copy(update={"measuring": tiny.measuring.model_copy(update={"bootstrap": 0})})
    assert draws.count_of(none) == 0


def test_replicates_of_an_older_cell_are_remade_from_its_embeddings_and_marks_once(tmp_path):
    folder = tmp_path / "cells" / "one"
    folder.mkdir(parents=True)
    random = np.random.default_rng(1)
    vectors = random.standard_normal((12, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    write_embeddings(folder / "judge.npz", vectors, np.repeat(np.arange(4), 3), identities=tuple("abcd"))
    folds = random.random(10)
    for name, keys in (("replicates.npz", ("fdr", "diversity")), ("student.npz", ("student_accuracy",))):
        np.savez(folder / name, **dict.fromkeys(keys, np.ones(21)))
    recipe = ExperimentRecipe.model_validate(TABLE)
    bench = Bench(recipe, SimpleNamespace(known=None), None, Journal(tmp_path, lambda _: None))
    floor = Setting("pca", 0, Strategy("floor", "none", "none", 0.0), "dpmpp")
    found = draws.of_set(floor, "cells/one", bench, 50)
    kept = read_embeddings(folder / "judge.npz")
    again = replicates(kept.embeddings, kept.labels, bootstrap=50, seed=recipe.measuring.seed)
    np.testing.assert_array_equal(found["fdr"], again.fdr)
    np.testing.assert_array_equal(read_replicates(folder / "replicates.npz")["diversity"], again.diversity)
    (folder / "judge.npz").unlink()
    np.testing.assert_array_equal(draws.of_set(floor, "cells/one", bench, 50)["fdr"], again.fdr)
    marks = {"benchmarks": {"frontal": {"accuracies": folds.tolist()}}}
    np.testing.assert_array_equal(draws.of_student("cells/one", marks, bench, 50)["student_accuracy"],
                                  accuracy_replicates(tuple(folds), "frontal", 50, recipe.measuring.seed))


def test_p_at_the_limit_is_never_printed_below_itself():
    assert outcome._p(Estimate(1.0, 1.0, 1.0, 0.00601, limit=True)) == "≤ 0.007"
    assert outcome._p(Estimate(1.0, 1.0, 1.0, 0.0004)) == "< 0.001"
    assert outcome._p(Estimate(1.0, 1.0, 1.0)) == "–"

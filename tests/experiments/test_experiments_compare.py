"""Comparisons are paired, hold at equal diversity, find what was planted and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from negface.contexts import ContextBank
from negface.evaluation import adherence
from negface.experiments.compare import (
    Curve,
    against,
    at_equal,
    common_target,
    curves,
    each_other,
    interpolate,
    spearman,
    to_baseline,
    to_unvaried,
)
from negface.experiments.intervals import Measured, Spread, estimate, holm
from negface.experiments.outcome import _equal_company, _usefulness
from negface.experiments.references import shuffled
from negface.experiments.stages import adherence_replicates
from negface.experiments.students import accuracy_replicates
from negface.perception import Embeddings

R = 400
NOISE = np.random.default_rng(0).standard_normal(R)


def replicates(value, noise=0.0):
    """An estimate and replicates that share ``NOISE``, as the same people drawn for every setting give."""
    return np.concatenate([[value], value * (1 + noise * NOISE)])


def grid(gain, seeds=(0,), noise=0.2):
    """Strategies along w: diversity falls with w for all, FDR = gain / diversity; plus the baseline."""
    cells = []
    for seed in seeds:
        cells.append(Measured("baseline", 0.0, seed, dict.fromkeys(("diversity", "fdr"), replicates(1.0, noise))))
        for name, (reach, factor) in gain.items():
            for weight in (0.5, 1.0, 2.0):
                diversity = 1 - reach * weight / 2
                cells.append(Measured(name, weight, seed, {
                    "diversity": replicates(diversity, noise),
                    "fdr": replicates(1 + factor * (1 - diversity), noise)}))
    return cells


def test_a_paired_ratio_has_no_error_where_the_noise_is_shared():
    found = against(grid({"far": (0.5, 2.0)}), "fdr", to_baseline, ratio=True)
    assert found["far", 2.0].value == pytest.approx(2.0)
    assert found["far", 2.0].low == pytest.approx(2.0)
    assert found["far", 2.0].sure


def test_a_varied_setting_is_held_against_the_same_without_over_the_seeds_both_have():
    cells = [Measured(name, weight, seed, {"fdr": replicates(value + seed)}) for name, weight, value, seeds in (
        ("baseline", 0.0, 1.0, (0, 1)), ("far", 0.5, 2.0, (0, 1)), ("far", 1.0, 9.0, (0,)),
        ("far + angular-0.6", 0.5, 4.0, (1,)), ("close + angular-0.6", 0.5, 1.0, (0,))) for seed in seeds]
    found = against(cells, "fdr", to_unvaried, ratio=True)
    assert {key: round(item.value, 6) for key, item in found.items()} == {
        ("far + angular-0.6", 0.5): round((4 + 1) / (2 + 1), 6)}
    assert ("far + angular-0.6", 0.5) in against(cells, "fdr", to_baseline, ratio=True)


def test_strategies_that_trade_alike_are_equal_at_equal_diversity_though_not_at_equal_w():
    cells = grid({"far": (0.8, 2.0), "close": (0.4, 2.0)}, noise=0.0)
    at_w = against(cells, "fdr", to_baseline, ratio=True)
    assert at_w["far", 1.0].value > at_w["close", 1.0].value
    made, _ = curves(cells, "diversity", "fdr")
    target = common_target(made)
    assert target == pytest.approx(0.7)  # half way to 0.4, the middle of where the curves end
    each, ratios = at_equal(made, target, "close")
    assert each["far"].value == pytest.approx(each["close"].value)
    assert ratios["far"].value == pytest.approx(1.0)


def test_a_curve_that_hardly_moves_does_not_decide_where_the_others_are_compared():
    made, _ = curves(grid({"far": (0.8, 2.0), "close": (0.4, 2.0), "still": (0.01, 2.0)}), "diversity", "fdr")
    target = common_target(made)
    assert target == pytest.approx(0.8)
    assert set(at_equal(made, target, "close")[0]) == {"far", "close"}


def taught(name, weight, accuracies):
    return [Measured(name, weight, seed, {
        "fdr": replicates(2.0 + weight, 0.01), "diversity": replicates(1 - weight / 4),
        "student_accuracy": replicates(value)}) for seed, value in enumerate(accuracies)]


def test_strategies_are_tested_against_each_other_by_the_spread_that_all_runs_show():
    cells = [*taught("baseline", 0.0, (0.80, 0.81, 0.79)), *taught("far", 0.5, (0.801, 0.809, 0.792)),
             *taught("null-learned", 0.5, (0.85, 0.86, 0.841)), *taught("random", 0.5, (0.802, 0.811, 0.79)),
             *taught("far", 2.0, (0.5,)), *taught("far + angular-0.6", 0.5, (0.7, 0.71, 0.69))]
    found = each_other(cells, "student_accuracy", ratio=False)
    assert list(found) == [(("far", 0.5), ("null-learned", 0.5)), (("far", 0.5), ("random", 0.5)),
                           (("null-learned", 0.5), ("random", 0.5))]
    assert [item.sure for item in found.values()] == [True, False, True]
    assert found[("far", 0.5), ("null-learned", 0.5)].value == pytest.approx(-0.0497, abs=1e-3)
    alike = each_other([*cells[:3], *taught("far", 0.5, (0.80, 0.86, 0.79)),
                           *taught("null-learned", 0.5, (0.85, 0.81, 0.841))], "student_accuracy", ratio=False)
    assert [item.sure for item in alike.values()] == [False]
    assert each_other([cell for cell in cells if cell.seed == 0], "fdr", ratio=True) == {}


def test_students_at_equal_diversity_differ_by_no_more_than_their_runs_do():
    cells = [*taught("baseline", 0.0, (0.80,)), *taught("far", 0.5, (0.81,)), *taught("far", 1.0, (0.80,)),
             *taught("close", 0.5, (0.82,)), *taught("close", 1.0, (0.84,))]
    made, _ = curves(cells, "diversity", "student_accuracy")
    target = common_target(made)
    for deviation, sure in ((0.001, True), (0.05, False)):
        _, differences = at_equal(made, target, "far", Spread(deviation, 14))
        assert differences["close"].value == pytest.approx(0.01)
        assert differences["close"].sure == sure
    assert at_equal(made, target, "far")[1]["close"].p is None


def test_a_planted_advantage_is_found_at_equal_diversity():
    cells = grid({"far": (0.8, 4.0), "close": (0.4, 2.0)}, noise=0.0)
    made, _ = curves(cells, "diversity", "fdr")
    each, ratios = at_equal(made, 0.8, "close")
    assert each["far"].value == pytest.approx(1 + 4 * 0.2)
    assert ratios["far"].value == pytest.approx(1.8 / 1.4)
    assert ratios["far"].sure


def test_interpolation_agrees_with_a_search_in_small_steps_and_says_where_it_ends():
    random = np.random.default_rng(3)
    x, y = np.sort(random.random((4, 6)), axis=0)[::-1], random.random((4, 6))
    curve = Curve("far", (0.0, 0.5, 1.0, 2.0), x, y, (0,), "fdr")
    target = float(np.median(x))
    found = interpolate(curve, target)
    for column in range(6):
        steps = np.linspace(0, 3, 300_001)
        xs, ys = (np.interp(steps, range(4), values[:, column]) for values in (x, y))
        if not xs.min() <= target <= xs.max():
            assert np.isnan(found[column])
            continue
        assert found[column] == pytest.approx(ys[np.abs(xs - target).argmin()], abs=1e-4)
    assert np.isnan(interpolate(curve, 2.0)).all()


def test_curves_that_go_opposite_ways_have_no_common_diversity():
    one, other = (Curve(name, (0.0, 1.0), np.array([[1.0], [end]]), np.ones((2, 1)), (0,), "fdr") for name, end in
                  (("a", 0.5), ("b", 1.5)))
    assert common_target([one, other]) is None
    assert common_target([one]) is None
    assert common_target([one, one]) == pytest.approx(0.75)


def test_curves_use_the_seeds_that_all_points_share():
    cells = [*grid({"far": (0.5, 2.0)}, seeds=(0, 1)), *grid({"close": (0.5, 1.0)}, seeds=(0,))[1:]]
    far = next(curve for curve in curves(cells, "diversity", "fdr")[0] if curve.name == "far")
    single = next(cell for cell in cells if cell.name == "far" and cell.weight == 0.5 and cell.seed == 0)
    assert far.seeds == (0,)
    assert far.x.shape == (4, 1 + 1 + R)
    np.testing.assert_allclose(np.sort(far.y[1, 2:]), np.sort(single.values["fdr"][1:]))


def test_the_table_of_equal_diversity_names_whom_it_leaves_out_and_why():
    cells = [*grid({"far": (0.5, 2.0), "mid": (0.4, 1.0)}),
             Measured("close", 0.5, 0, {"diversity": replicates(0.9), "fdr": replicates(1.1)}),
             Measured("random", 0.5, 0, {"fdr": replicates(1.1)}), Measured("random", 1.0, 0, {"fdr": replicates(1.2)})]
    made, left_out = curves(cells, "diversity", "fdr")
    assert [curve.name for curve in made] == ["far", "mid"]
    assert left_out == {"close": "measured at w = 0.5 alone", "random": "not measured"}
    said = _equal_company(cells)[0]["say"]
    assert "Could not be compared: close (measured at w = 0.5 alone); random (not measured)." in said
    kept = ((0.0, 0), (0.5, 1), (1.0, 1))
    apart = [cell for cell in grid({"far": (0.5, 2.0)}, seeds=(0, 1)) if (cell.weight, cell.seed) in kept]
    assert curves(apart, "diversity", "fdr") == ([], {"far": "no seed shared with the baseline and the others"})


def settings(random, n, strength=0.0, seeds=1, stratum="pca", level=0.0):
    """Settings in which student accuracy follows FDR with ``strength``; their seeds differ a little."""
    x = random.standard_normal(n)
    y = strength * x + random.standard_normal(n)
    return [Measured(f"s{number}", 0.5, seed, {
        "fdr": replicates(level + a + 0.01 * random.standard_normal()),
        "student_accuracy": replicates(level + b + 0.01 * random.standard_normal())}, stratum)
        for number, (a, b) in enumerate(zip(x, y)) for seed in range(seeds)]


def test_rank_correlation_agrees_with_scipy_ties_included():
    random = np.random.default_rng(1)
    x, y = random.integers(0, 6, 15).astype(float), random.standard_normal(15)
    cells = [Measured(f"s{n}", 0.5, 0, {"fdr": replicates(a), "student_accuracy": replicates(b)})
             for n, (a, b) in enumerate(zip(x, y))]
    found = spearman(cells, "fdr", "student_accuracy")
    assert (found.n_settings, found.n_cells) == (15, 15)
    assert found.rho.value == pytest.approx(spearmanr(x, y).statistic)
    assert spearman(cells[:3], "fdr", "student_accuracy") is None


def test_seeds_of_a_setting_are_one_observation_of_the_correlation():
    random = np.random.default_rng(8)
    one = settings(random, 6, seeds=1)
    many = [Measured(cell.name, cell.weight, seed, cell.values, cell.stratum) for cell in one for seed in range(5)]
    alone, repeated = (spearman(cells, "fdr", "student_accuracy") for cells in (one, many))
    assert (repeated.n_settings, repeated.n_cells) == (6, 30)
    assert repeated.rho.value == pytest.approx(alone.rho.value)
    assert repeated.rho.high - repeated.rho.low > 0.9 * (alone.rho.high - alone.rho.low)


def test_strata_that_differ_in_level_plant_no_correlation():
    random = np.random.default_rng(9)
    low, high = settings(random, 8, stratum="pca"), settings(random, 8, stratum="uniform", level=100.0)
    found = spearman([*low, *high], "fdr", "student_accuracy")
    apart = [spearman(cells, "fdr", "student_accuracy").rho.value for cells in (low, high)]
    assert found.rho.value == pytest.approx(np.mean(apart))
    mixed = [Measured(f"{cell.stratum} {cell.name}", 0.5, 0, cell.values) for cell in (*low, *high)]
    assert spearman(mixed, "fdr", "student_accuracy").rho.value > 0.6
    lone = [Measured("far", 0.5, 0, high[0].values, "authentic")]
    assert spearman([*low, *lone], "fdr", "student_accuracy").n_settings == 8


@pytest.mark.parametrize(("sign", "said"), [(1, "makes a better"), (-1, "makes a worse"), (0, "does not surely")])
def test_the_answer_is_said_from_the_figures(sign, said):
    random = np.random.default_rng(5)
    cells = [Measured(f"s{n}", 0.5, 0, {"fdr": replicates(float(n + 1)), "student_accuracy": replicates(
        sign * (n + 1) + (random.standard_normal() * 5 if sign == 0 else 0))}) for n in range(12)]
    answer, tables = _usefulness(cells)
    assert said in answer
    assert "over 12 settings (12 cells)" in answer
    assert tables[0]["rows"][0][1:3] == ["12", "12"]


def test_where_nothing_was_planted_few_of_many_tests_are_sure():
    sure = 0
    for trial in range(60):
        random = np.random.default_rng(100 + trial)
        values = random.standard_normal((2, 30)).mean(axis=1)
        drawn = [np.concatenate([[value], value + random.standard_normal(R) / np.sqrt(30)]) for value in values]
        cells = [Measured("baseline", 0.0, 0, {"m": drawn[0]}), Measured("far", 0.5, 0, {"m": drawn[1]})]
        sure += against(cells, "m", to_baseline, ratio=False)["far", 0.5].sure
    assert sure <= 8


def test_holm_equals_the_slow_way():
    random = np.random.default_rng(2)
    p = random.random(7) / 10
    found = {(str(n), 0.0): estimate(np.ones(2)) for n in range(7)}
    found = {key: replace(item, p=value) for (key, item), value in zip(found.items(), p)}
    adjusted = holm(found)
    for n in range(7):
        slow = max(min(1.0, (7 - np.sum(p < other)) * other) for other in p if other <= p[n])
        assert adjusted[str(n), 0.0].p == pytest.approx(slow)


def test_replicates_that_are_mostly_undefined_give_no_interval():
    values = np.full(11, np.nan)
    values[:5] = 1.0
    assert estimate(values).low is None


def test_adherence_replicates_give_the_measured_estimate_and_interval():
    random = np.random.default_rng(4)
    bank = ContextBank.from_vectors(random.standard_normal((6, 8)), normalise=True)
    labels = np.repeat(np.arange(6), [2, 3, 4, 2, 5, 3])
    vectors = bank.contexts[labels] + 0.5 * random.standard_normal((len(labels), 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    seen = Embeddings(vectors.astype(np.float32), labels, bank.ids, (), {})
    measured = adherence(seen.embeddings, labels, bank.contexts, bootstrap=200, seed=3)
    found = adherence_replicates(seen, bank, 200, 3)
    assert found[0] == pytest.approx(measured.adherence, rel=1e-5)
    assert tuple(np.quantile(found[1:], [0.025, 0.975])) == pytest.approx((measured.low, measured.high), rel=1e-5)


def test_students_with_equal_folds_never_differ_and_benchmarks_are_drawn_apart():
    folds = tuple(np.random.default_rng(6).random(10))
    one, other = (accuracy_replicates(folds, "frontal", 100, 0) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert one[0] == pytest.approx(np.mean(folds))
    assert one[1:].mean() == pytest.approx(one[0], abs=0.05)
    assert np.abs(one - accuracy_replicates(folds, "occluded", 100, 0)).max() > 0.01


def test_shuffled_names_keep_their_counts_and_depend_on_the_seed():
    labels = np.repeat(np.arange(20), 5)
    assert np.bincount(shuffled(labels, 0)).tolist() == [5] * 20
    assert (shuffled(labels, 0) != labels).mean() > 0.8
    assert (shuffled(labels, 0) != shuffled(labels, 1)).any()

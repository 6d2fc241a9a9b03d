"""The bootstrap over identities against re-scoring of copies, replicate by replicate and as intervals."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation_twin import people, rescored

import negface.evaluation._separability as module
from negface.evaluation import MEASURES, bootstrap, separability
from negface.evaluation.inputs import gallery
from negface.evaluation.ranked import SortedScores
from negface.evaluation.scoring import genuine_scores, scan


def replicates_of(embeddings, labels, n, seed=0):
    """Every measure of every replicate by the fast path, ``[n]`` each, and the multiplicities."""
    group = gallery(embeddings, labels)
    weights = bootstrap.multiplicities(group.n_identities, n, seed)
    scores, codes = genuine_scores(group)
    plan = module._plan(group, SortedScores(scores), weights, seed)
    found = module._replicates(group, plan.thresholds, scan(group, plan), scores, codes, weights, plan.centre)
    values = bootstrap.moments(found)
    values["eer"] = bootstrap.equal_error(found)
    values["fmr100"], values["fmr1000"] = (bootstrap.miss_at_fmr(found, bound) for bound in (0.01, 0.001))
    return values, weights


@pytest.fixture(scope="module")
def sixty():
    return people(60, 6, 32, 0.2, seed=11)


@pytest.fixture(scope="module")
def both_ways(sixty):
    """120 replicates of 60 people by tables, and the same draws by copying and scoring again."""
    values, weights = replicates_of(*sixty, 120)
    drawn = [np.repeat(np.arange(60), column.astype(int)) for column in weights.T]
    exact = [rescored(*sixty, draw) for draw in drawn]
    return values, {name: np.array([one[name] for one in exact]) for name in MEASURES}


# Of one replicate (one genuine pair of a person drawn five times is a step of 0.0055) and of an end of the interval.
MOMENT = (1e-6, 1e-6)
TOLERANCE = {"fdr": (1e-4, 1e-4), "dprime": (1e-4, 1e-4), "genuine_mean": MOMENT, "genuine_std": MOMENT,
             "impostor_mean": MOMENT, "impostor_std": MOMENT, "eer": (0.006, 0.001), "fmr100": (0.012, 0.004),
             "fmr1000": (0.03, 0.008)}


@pytest.mark.parametrize("measure", MEASURES)
def test_replicates_equal_rescoring_of_copies(both_ways, measure):
    """60 people x 6 (900 genuine pairs, 62 impostors above FMR 0.1 %): moments exact, rates within a step."""
    fast, exact = both_ways
    off = np.abs(fast[measure] - exact[measure])
    assert off.max() <= TOLERANCE[measure][0]
    assert off.mean() <= TOLERANCE[measure][1] / 2
    assert exact[measure].std() > 10 * off.mean()


@pytest.mark.parametrize("measure", MEASURES)
def test_intervals_equal_those_of_rescoring(both_ways, measure):
    fast, exact = (np.array(bootstrap.interval(values[measure])) for values in both_ways)
    assert np.abs(fast - exact).max() <= TOLERANCE[measure][1]


def test_copies_of_a_person_are_never_impostors():
    """Person 0 drawn four times, 1 once: were copies impostors, the impostor mean would rise towards the genuine."""
    embeddings, labels = people(3, 4, 16, 0.1)
    _, weights = replicates_of(embeddings, labels, 40)
    values, _ = replicates_of(embeddings, labels, 40)
    for column in range(40):
        drawn = np.repeat(np.arange(3), weights[:, column].astype(int))
        if len(set(drawn)) < 2:
            assert np.isnan(values["impostor_mean"][column])
            assert np.isnan(values["eer"][column])
            continue
        exact = rescored(embeddings, labels, drawn)
        assert values["impostor_mean"][column] == pytest.approx(exact["impostor_mean"], abs=1e-6)
        assert values["impostor_mean"][column] < 0.6


def test_an_undrawn_bootstrap_gives_the_estimate(sixty):
    """With every person once, the replicate is the estimate itself."""
    group = gallery(*sixty)
    ones = np.ones((60, 1))
    scores, codes = genuine_scores(group)
    plan = module._plan(group, SortedScores(scores), ones, 0)
    found = module._replicates(group, plan.thresholds, scan(group, plan), scores, codes, ones, plan.centre)
    estimate = separability(*sixty, bootstrap=0)
    assert bootstrap.equal_error(found)[0] == pytest.approx(estimate.eer, abs=0.002)
    assert bootstrap.miss_at_fmr(found, 0.01)[0] == pytest.approx(estimate.fmr100, abs=0.004)
    assert bootstrap.moments(found)["fdr"][0] == pytest.approx(estimate.fdr, rel=1e-5)


def test_intervals_are_seeded_and_hold_the_estimate(sixty):
    first, again, other = (separability(*sixty, bootstrap=200, seed=seed) for seed in (1, 1, 2))
    assert first.intervals == again.intervals != other.intervals
    assert first.eer == other.eer
    for name in MEASURES:
        low, high = first.intervals[name]
        assert low <= getattr(first, name) <= high
        assert low < high


def test_intervals_shrink_with_more_people():
    widths = []
    for n in (20, 80):
        low, high = separability(*people(n, 5, 24, 0.3, seed=2), bootstrap=200).intervals["genuine_mean"]
        widths.append(high - low)
    assert widths[1] < 0.75 * widths[0]


def test_people_across_tiles_and_flushes_weigh_the_same(monkeypatch):
    """A table that is flushed after every tile gives the same replicates as one that is not."""
    import negface.evaluation.scoring as scoring

    embeddings, labels = people(400, 3, 8, 0.3)
    group = gallery(embeddings, labels)
    weights = bootstrap.multiplicities(400, 7, 0)
    scores, _ = genuine_scores(group)
    plan = module._plan(group, SortedScores(scores), weights, 0)
    whole = scan(group, plan)
    monkeypatch.setattr(scoring, "_TABLE_BYTES", 1)
    cut = scan(group, plan)
    assert (whole.weighted_bins == cut.weighted_bins).all()
    sizes = group.sizes @ weights
    expected = (sizes**2 - group.sizes**2 @ weights**2) / 2
    assert (whole.weighted_bins.sum(axis=0) == expected).all()


def test_many_genuine_scores_are_thinned_without_moving_the_rates(monkeypatch):
    embeddings, labels = people(60, 8, 24, 0.32, seed=4)
    full = separability(embeddings, labels, bootstrap=100)
    monkeypatch.setattr(bootstrap, "_GENUINE_STEPS", 400)
    thin = separability(embeddings, labels, bootstrap=100)
    for name in ("eer", "fmr100", "fmr1000"):
        assert np.abs(np.subtract(full.intervals[name], thin.intervals[name])).max() < 0.003


def test_mean_with_interval_leaves_out_what_was_not_measured():
    values, codes = np.array([1.0, np.nan, 3.0, 5.0]), np.array([0, 0, 1, 2])
    mean, low, high = bootstrap.mean_with_interval(values, codes, replicates=300, seed=0)
    assert mean == 3
    assert 1 <= low < 3 < high <= 5
    assert bootstrap.mean_with_interval(values * np.nan, codes, replicates=3, seed=0)[1:] == (None, None)

"""Separability against a slow twin, pyeer and scikit-learn; its invariances; its refusals."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from evaluation_twin import measures, pairs, people, rates
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

import negface.evaluation._separability as module
from negface.evaluation import MEASURES, separability
from negface.evaluation import operating_points as points
from negface.foundation.errors import InputError, MismatchError


def same_measures(found, expected, tolerance=2e-6):
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, abs=tolerance, rel=1e-4), name


def test_agrees_with_the_full_matrix():
    embeddings, labels = people(40, 6, 24, 0.3)
    genuine, impostor, _ = pairs(embeddings, labels)
    found = separability(embeddings, labels, bootstrap=0)
    assert (found.n_genuine, found.n_impostor) == (len(genuine), len(impostor))
    same_measures(found, measures(genuine, impostor))


def test_more_images_than_a_tile_agree_with_the_full_matrix():
    """1,500 images: several strips, two columns of tiles, people across tile borders, unequal numbers of images."""
    random = np.random.default_rng(1)
    sizes = random.integers(1, 60, 50)
    centres, _ = people(50, 1, 12, 0.0)
    labels = np.repeat(np.arange(50), sizes)
    embeddings = centres[labels] + 0.2 * random.standard_normal((len(labels), 12)).astype(np.float32)
    assert len(labels) > 1200
    genuine, impostor, _ = pairs(embeddings, labels)
    found = separability(embeddings, labels, bootstrap=0)
    same_measures(found, measures(genuine, impostor))
    assert sum(found.histogram["impostor"]) == found.n_impostor
    expected = np.histogram(impostor, found.histogram["edges"])[0]
    assert np.abs(np.array(found.histogram["impostor"]) - expected).max() <= 3, "rounding at bin edges only"
    assert sum(found.histogram["genuine"]) == found.n_genuine


@pytest.mark.parametrize("spans", ["right", "wrong"])
def test_is_exact_when_only_some_scores_are_kept(monkeypatch, spans):
    """If the sample looked in the wrong place, a second pass keeps the right scores."""
    embeddings, labels = people(40, 8, 16, 0.35)
    expected = separability(embeddings, labels, bootstrap=0)
    scans = []
    monkeypatch.setattr(module, "scan", lambda *a, real=module.scan, **k: scans.append(real(*a, **k)) or scans[-1])
    monkeypatch.setattr(module, "_KEEP_ALL", 0)
    if spans == "wrong":
        monkeypatch.setattr(module.lookout, "spans", lambda *_: [(0.98, 1.0)])
    found = separability(embeddings, labels, bootstrap=0)
    assert len(scans) == (1 if spans == "right" else 2)
    assert len(scans[-1].kept) < found.n_impostor / 4
    for name in ("eer", "fmr100", "fmr1000"):
        assert getattr(found, name) == getattr(expected, name)
    assert found.thresholds == expected.thresholds


def test_block_and_threads_change_nothing_bit_for_bit():
    embeddings, labels = people(90, 15, 16, 0.3)
    first = separability(embeddings, labels, bootstrap=50, block=256, threads=1).to_dict()
    for block, threads in ((1, 2), (700, 1), (100_000, 3)):
        assert separability(embeddings, labels, bootstrap=50, block=block, threads=threads).to_dict() == first


def test_order_of_the_images_changes_only_the_indices():
    embeddings, labels = people(20, 5, 8, 0.3)
    shuffle = np.random.default_rng(0).permutation(len(labels))
    first, other = separability(embeddings, labels), separability(embeddings[shuffle], labels[shuffle])
    for name in MEASURES:
        assert getattr(other, name) == pytest.approx(getattr(first, name), abs=1e-6)
    one, two = first.closest_pairs[0], other.closest_pairs[0]
    assert {one["a"], one["b"]} == {int(shuffle[two["a"]]), int(shuffle[two["b"]])}


def test_labels_may_be_names():
    embeddings, labels = people(10, 4, 8, 0.3)
    named = np.array([f"person-{label:02d}" for label in labels])
    assert separability(embeddings, named).fdr == separability(embeddings, labels).fdr
    assert separability(embeddings, named).closest_pairs[0]["a_identity"].startswith("person-")


def test_shuffled_labels_separate_nothing():
    embeddings, labels = people(60, 8, 16, 0.25)
    shuffled = np.random.default_rng(3).permutation(labels)
    found = separability(embeddings, shuffled)
    assert found.eer == pytest.approx(0.5, abs=0.03)
    assert found.fdr < 0.02
    assert found.intervals["eer"][0] - 0.01 < 0.5 < found.intervals["eer"][1] + 0.01


def test_people_far_apart_are_separated_completely():
    embeddings = np.repeat(np.eye(6, dtype=np.float32), 3, axis=0)
    found = separability(embeddings, np.repeat(np.arange(6), 3), bootstrap=20)
    assert (found.eer, found.fmr100, found.fmr1000) == (0, 0, 0)
    assert (found.genuine_mean, found.impostor_mean) == pytest.approx((1, 0), abs=1e-6)


def test_identical_images_of_everybody_are_not_separated():
    found = separability(np.ones((12, 4), np.float32), np.repeat(np.arange(4), 3), bootstrap=20)
    assert found.eer == 0.5
    assert found.fmr1000 == 1
    assert found.to_dict()["fdr"] is None


def test_closest_pairs_are_the_highest_scores_of_different_people():
    embeddings, labels = people(30, 6, 8, 0.3)
    _, impostor, (first, second, same) = pairs(embeddings, labels)
    best: dict = {}
    for score, i, j in zip(impostor, first[~same], second[~same], strict=True):
        key = (labels[i], labels[j])
        if score > best.get(key, (-2,))[0]:
            best[key] = (score, i, j)
    expected = sorted(best.values(), reverse=True)[:20]
    found = separability(embeddings, labels, bootstrap=0).closest_pairs
    assert [(pair["a"], pair["b"]) for pair in found] == [(i, j) for _, i, j in expected]
    assert all(pair["a_identity"] == labels[pair["a"]] != labels[pair["b"]] for pair in found)


def test_a_mislabelled_person_is_an_outlier():
    embeddings, labels = people(20, 6, 16, 0.08)
    labels = labels.copy()
    labels[:3], labels[6:9] = 1, 0
    lowest = separability(embeddings, labels, bootstrap=0).outliers["lowest_genuine"]
    assert {item["identity"] for item in lowest[:2]} == {0, 1}


def test_agrees_with_pyeer_where_definitions_agree(monkeypatch):
    """pyeer takes the threshold *nearest* to the wanted FMR, ours satisfies it: equal within one step of FMR.

    Its FNMR there must lie between ours at neighbouring bounds; EER and moments must agree to 1e-4.
    """
    # pyeer asks setuptools' retired module for the path of its HTML report, which is not used here.
    monkeypatch.setitem(sys.modules, "pkg_resources", types.ModuleType("pkg_resources"))
    from pyeer.eer_info import get_eer_stats

    embeddings, labels = people(50, 8, 24, 0.3, seed=5)
    genuine, impostor, _ = pairs(embeddings, labels)
    stats = get_eer_stats(genuine.tolist(), impostor.tolist())
    found = separability(embeddings, labels, bootstrap=0)
    assert found.eer == pytest.approx(stats.eer, abs=1e-4)
    assert found.genuine_mean == pytest.approx(stats.gmean, abs=1e-4)
    assert found.genuine_std == pytest.approx(stats.gstd, abs=1e-4)
    assert found.impostor_mean == pytest.approx(stats.imean, abs=1e-4)
    assert found.impostor_std == pytest.approx(stats.istd, abs=1e-4)
    for name, bound in (("fmr100", 0.01), ("fmr1000", 0.001)):
        step = 2 / len(impostor)
        tighter, looser = (np.quantile(impostor, 1 - rate, method="higher") for rate in (bound - step, bound + step))
        low, high = (genuine < looser).mean(), (genuine <= tighter).mean()
        assert low - 1e-9 <= getattr(stats, name) <= high + 1e-9
        assert low - 1e-9 <= getattr(found, name) <= high + 1e-9


def test_agrees_with_scikit_learn_at_the_bounds():
    embeddings, labels = people(50, 8, 24, 0.3, seed=6)
    genuine, impostor, _ = pairs(embeddings, labels)
    truth = np.repeat([1, 0], [len(genuine), len(impostor)])
    fmr, hit, _ = roc_curve(truth, np.concatenate([genuine, impostor]), drop_intermediate=False)
    found = separability(embeddings, labels, bootstrap=0)
    for name, bound in (("fmr100", 0.01), ("fmr1000", 0.001)):
        assert getattr(found, name) == pytest.approx((1 - hit)[fmr <= bound].min(), abs=1e-4)
    at = np.abs(fmr - (1 - hit)).argmin()
    assert found.eer == pytest.approx((fmr[at] + 1 - hit[at]) / 2, abs=1e-4)


def test_the_bound_on_fmr_is_kept_and_is_as_loose_as_can_be():
    embeddings, labels = people(40, 6, 16, 0.3, seed=7)
    genuine, impostor, _ = pairs(embeddings, labels)
    found = separability(embeddings, labels, bootstrap=0)
    for name, bound in (("fmr100", 0.01), ("fmr1000", 0.001)):
        threshold = found.thresholds[name]
        # The twin multiplies in another order, so scores differ in the last place.
        assert (impostor >= threshold + 1e-6).mean() <= bound
        assert (impostor >= threshold - 1e-6).mean() > bound
        assert getattr(found, name) == pytest.approx((genuine < threshold).mean(), abs=1e-9)


def test_det_curve_falls_and_passes_the_operating_points():
    embeddings, labels = people(30, 6, 16, 0.35)
    found = separability(embeddings, labels, bootstrap=0)
    fmr, fnmr = np.array(found.det["fmr"]), np.array(found.det["fnmr"])
    assert (np.diff(fmr) <= 0).all()
    assert (np.diff(fnmr) >= 0).all()
    assert (fmr[0], fmr[-1]) == (1, 0)
    crossing = np.interp(0, fnmr - fmr, (fnmr + fmr) / 2)
    assert crossing == pytest.approx(found.eer, abs=0.01)


lattice_scores = st.lists(st.integers(-8, 8), min_size=1, max_size=30)


@settings(max_examples=200, deadline=None)
@given(lattice_scores, lattice_scores, st.sets(st.integers(-9, 9), max_size=6))
def test_operating_points_are_exact_for_any_scores_and_bins(genuine, impostor, edges):
    """Few distinct values, so nearly everything is a tie; bins anywhere."""
    genuine, impostor = np.sort(np.float32(genuine) / 8), np.sort(np.float32(impostor) / 8)
    thresholds = np.array(sorted(edges)) / 8
    bins = np.bincount(np.searchsorted(thresholds, impostor, side="right"), minlength=len(thresholds) + 1)
    counts = points.Counts(thresholds, bins, impostor, genuine)
    expected = rates(genuine, impostor)
    missed = np.searchsorted(genuine, np.append(np.unique(np.concatenate([genuine, impostor])), np.inf))
    assert missed[-1] == len(genuine)
    for name, divisor in points.FMR_BOUNDS.items():
        assert points.miss_at_fmr(counts, divisor)[0] == pytest.approx(expected[name])
    # Two thresholds may be equally far from equal; then either is the EER, ours that of the lower threshold.
    value, threshold = points.equal_error(counts)
    fmr, fnmr = (impostor >= threshold).mean(), (genuine < threshold).mean()
    every = np.append(np.unique(np.concatenate([genuine, impostor])), np.float32(np.inf))
    gaps = [abs((impostor >= t).mean() - (genuine < t).mean()) for t in every]
    assert abs(fmr - fnmr) == pytest.approx(min(gaps))
    assert value == pytest.approx((fmr + fnmr) / 2)
    assert value == pytest.approx(expected["eer"]) or np.isclose(sorted(gaps)[:2], min(gaps)).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 12), st.integers(2, 5), st.floats(0.05, 1.0))
def test_any_small_set_agrees_with_the_twin(seed, n_identities, n_images, spread):
    embeddings, labels = people(n_identities, n_images, 6, spread, seed)
    genuine, impostor, _ = pairs(embeddings, labels)
    found = separability(embeddings, labels, bootstrap=5)
    expected = measures(genuine, impostor)
    for name in ("genuine_mean", "genuine_std", "impostor_mean", "impostor_std"):
        assert getattr(found, name) == pytest.approx(expected[name], abs=1e-5)
    # Rounding may swap two neighbours, which moves a rate by at most one pair.
    step = 1 / len(genuine) + 1 / len(impostor)
    for name in ("eer", "fmr100", "fmr1000"):
        assert abs(getattr(found, name) - expected[name]) <= step + 1e-9


BAD = {
    "NaN": (lambda e, y: (np.where(np.arange(len(e))[:, None] == 3, np.nan, e), y), "row 3 holds NaN"),
    "zero row": (lambda e, y: (e * (np.arange(len(e)) != 2)[:, None], y), "row 2 is all zero"),
    "lengths": (lambda e, y: (e, y[:-1]), "one label for each"),
    "one identity": (lambda e, y: (e, y * 0), "at least two identities"),
    "no genuine pair": (lambda e, y: (e, np.arange(len(y))), "no identity has two images"),
    "float labels": (lambda e, y: (e, y / 2), "integers or strings"),
    "one dimension": (lambda e, y: (e[0], y), "an array of numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    spoil, message = BAD[case]
    with pytest.raises(InputError, match=message):
        separability(*spoil(*people(4, 3, 8)))


def test_the_conditioner_may_not_judge_unless_forced():
    embeddings, labels = people(4, 3, 8)
    judge, conditioner = {"name": "a", "hash": "AB12"}, {"name": "b", "hash": "ab12"}
    with pytest.raises(MismatchError, match="judge is the conditioner"):
        separability(embeddings, labels, judge=judge, conditioner=conditioner)
    forced = separability(embeddings, labels, judge=judge, conditioner=conditioner, force=True, bootstrap=5)
    assert forced.to_dict()["judge_is_conditioner"] is True
    assert separability(embeddings, labels, judge=judge, conditioner="cd34", bootstrap=5).judge_is_conditioner is False
    assert separability(embeddings, labels, judge=judge, bootstrap=5).judge_is_conditioner is None

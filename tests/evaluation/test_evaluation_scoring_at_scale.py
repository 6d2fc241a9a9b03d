"""Scoring at scale against the full matrix, against the bootstrap's way, scikit-learn and pyeer; its invariances."""

from __future__ import annotations

import dataclasses
import sys
import types
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import numpy as np
import pytest
from evaluation_twin import pairs, people
from sklearn.metrics import roc_curve

import negface.evaluation._separability as module
from negface.evaluation import MEASURES, separability
from negface.evaluation import at_scale as scale
from negface.evaluation.at_scale import measure_at_scale
from negface.evaluation.company import measure, table
from negface.evaluation.genuine import distinct_genuine
from negface.evaluation.inputs import gallery
from negface.evaluation.int8_scores import to_int8
from negface.evaluation.ranked import BinnedScores
from negface.evaluation.tails import TailWork
from negface.foundation.errors import UnknownNameError
from negface.perception import Embeddings


@pytest.fixture(autouse=True)
def small_samples(monkeypatch):
    """The guess of where to look need not be good here."""
    monkeypatch.setattr(scale, "_SAMPLE", 1 << 16)


@pytest.fixture(scope="module")
def faces():
    """Unequal numbers of images, several strips and columns of tiles, people across tile borders."""
    random = np.random.default_rng(4)
    labels = np.repeat(np.arange(90), random.integers(1, 30, 90))
    centres, _ = people(90, 1, 24, 0.0, seed=4)
    noise = 0.18 * random.gamma(4, 0.25, (90, 1))[labels] * random.standard_normal((len(labels), 24))
    return (centres[labels] + noise).astype(np.float32), labels


def test_large_sets_get_the_values_of_small_ones(faces):
    small, large = separability(*faces, bootstrap=0), separability(*faces, bootstrap=0, at_scale=True)
    for name in MEASURES:
        assert getattr(large, name) == pytest.approx(getattr(small, name), abs=1e-6), name
    for name in ("histogram", "closest_pairs", "n_genuine", "n_impostor"):
        assert getattr(large, name) == getattr(small, name), name
    for kind, people_found in small.outliers.items():
        assert [item["identity"] for item in large.outliers[kind]] == [item["identity"] for item in people_found]
    assert large.thresholds == pytest.approx(small.thresholds, abs=1e-6)


def test_a_set_of_many_images_is_measured_at_scale(faces, monkeypatch):
    assert separability(*faces, bootstrap=20).interval_method == "bootstrap over identities"
    monkeypatch.setattr(module, "_LARGE_IMAGES", 1000)
    assert separability(*faces, bootstrap=20).interval_method == "jackknife over identities"


def test_the_det_curve_is_the_full_matrix_at_its_thresholds(faces):
    genuine, impostor, _ = pairs(*faces)
    det = separability(*faces, bootstrap=0, at_scale=True).det
    assert len(det["threshold"]) > 150
    for threshold, fmr, fnmr in zip(det["threshold"], det["fmr"], det["fnmr"], strict=True):
        # The twin multiplies in another order, so scores differ in the last place.
        assert fmr == pytest.approx((impostor >= threshold).mean(), abs=3 / len(impostor))
        assert fnmr == pytest.approx((genuine < threshold).mean(), abs=1.5 / len(genuine))


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_block_and_threads_change_nothing(faces, precision):
    first = separability(*faces, bootstrap=1, at_scale=True, precision=precision, block=256, threads=1).to_dict()
    for block, threads in ((1, 2), (100_000, 3)):
        other = separability(*faces, bootstrap=1, at_scale=True, precision=precision, block=block, threads=threads)
        assert other.to_dict() == first


@pytest.mark.process
def test_another_executor_changes_nothing(faces):
    """Processes, whose parts are added in the wrong order: as a cluster would."""
    def over_processes(work, jobs):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return list(pool.map(work, jobs))[::-1]

    here = separability(*faces, bootstrap=1, at_scale=True, block=512)
    assert separability(*faces, bootstrap=1, block=512, map_blocks=over_processes).to_dict() == here.to_dict()


def test_tiles_of_another_shape_count_the_same_pairs(faces):
    """As on a GPU, whose tiles are larger."""
    people_ = gallery(*faces)
    genuine = BinnedScores(scale.pair_moments(people_).genuine_bins, partial(distinct_genuine, people_))
    plan = scale._plan(people_, genuine, 0, 0, True)
    whole = [scale.count_tails(TailWork(people_, plan, shape=shape), scale.over_threads(1))
             for shape in (None, (512, 2048), (64, 64))]
    for other in whole[1:]:
        assert other.bins.sum() == whole[0].bins.sum() == people_.n_impostor
        assert np.abs(other.lattice[1:] - whole[0].lattice[1:]).sum() <= 40, "rounding at cell edges only"
        assert np.abs(other.marked.sum(axis=1) - whole[0].marked.sum(axis=1)).max() <= 8


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_wrong_guess_costs_a_second_pass_and_no_accuracy(faces, monkeypatch, precision):
    expected = separability(*faces, bootstrap=0, at_scale=True)
    passes = []
    monkeypatch.setattr(scale, "count_tails", lambda *a, real=scale.count_tails: passes.append(real(*a)) or passes[-1])
    monkeypatch.setattr(scale.lookout, "spans", lambda *_: [(0.97, 0.98)])
    found = separability(*faces, bootstrap=0, at_scale=True, precision=precision)
    assert len(passes) > 1
    assert found.closest_pairs[0]["a"] == expected.closest_pairs[0]["a"]
    for name in ("eer", "fmr100", "fmr1000"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=1e-6)


def test_int8_is_exact_around_the_operating_points(faces):
    exact, fast = (separability(*faces, bootstrap=0, at_scale=True, precision=kind) for kind in ("float32", "int8"))
    for name in MEASURES:
        assert getattr(fast, name) == pytest.approx(getattr(exact, name), abs=1e-6), name
    assert 0 < fast.score_error["rescored_pairs"] < fast.n_impostor / 3
    assert fast.score_error["rescored_largest"] <= fast.score_error["slack"] * 1.01
    assert fast.score_error["rate_bound"] < 1e-6
    assert [pair["a"] for pair in fast.closest_pairs] == [pair["a"] for pair in exact.closest_pairs]


def test_errors_beyond_the_slack_are_counted_and_widen_the_bound_on_rates(faces, monkeypatch):
    honest = separability(*faces, bootstrap=0, at_scale=True, precision="int8").score_error
    assert honest["rescored_beyond"] == 0
    real = scale.to_int8

    def careless(*arguments, **options):
        made = real(*arguments, **options)
        return dataclasses.replace(made, slack=made.slack / 5)

    monkeypatch.setattr(scale, "to_int8", careless)
    found = separability(*faces, bootstrap=0, at_scale=True, precision="int8").score_error
    assert found["rescored_beyond"] > 10
    assert found["rate_bound"] > found["rescored_beyond"] / found["rescored_pairs"] > 100 * honest["rate_bound"]


def test_int8_scores_stay_within_their_bound(faces):
    people_ = gallery(*faces)
    quantised = to_int8(people_, seed=0)
    rounded = quantised.codes.double() * quantised.scales[:, None].double()
    off = np.abs((rounded @ rounded.T).numpy() - people_.embeddings.astype(np.float64) @ people_.embeddings.T)
    assert off.max() <= quantised.bound
    assert (off > quantised.slack).mean() < 1e-4
    assert quantised.deviation == pytest.approx(np.sqrt((off**2).mean()), rel=0.1)


def test_scoring_only_some_pairs_again_stays_within_the_printed_bound(faces, monkeypatch):
    exact = separability(*faces, bootstrap=0, at_scale=True)
    monkeypatch.setattr(scale, "_RESCORED_PAIRS", 2000)
    monkeypatch.setattr(scale, "_RESCORED_SHARE", 0.0)
    fast = separability(*faces, bootstrap=0, precision="int8")
    assert fast.score_error["rescored_pairs"] < 12_000
    genuine, impostor, _ = pairs(*faces)
    for name, share in (("fmr100", 0.01), ("fmr1000", 0.001)):
        rate = (impostor >= fast.thresholds[name]).mean()
        assert rate == pytest.approx(share, abs=fast.score_error["rate_bound"] + 2 / len(impostor))
    assert fast.eer == pytest.approx(exact.eer, abs=fast.score_error["rate_bound"] + 1 / len(genuine))


@pytest.mark.parametrize("n_people", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_agrees_with_scikit_learn(n_people):
    embeddings, labels = people(n_people, 20, 48, 0.24, seed=8)
    genuine, impostor, _ = pairs(embeddings, labels)
    truth = np.repeat([1, 0], [len(genuine), len(impostor)])
    fmr, hit, _ = roc_curve(truth, np.concatenate([genuine, impostor]), drop_intermediate=False)
    for precision in ("float32", "int8"):
        found = separability(embeddings, labels, bootstrap=0, at_scale=True, precision=precision)
        for name, bound in (("fmr100", 0.01), ("fmr1000", 0.001)):
            assert getattr(found, name) == pytest.approx((1 - hit)[fmr <= bound].min(), abs=1e-4)
        at = np.abs(fmr - (1 - hit)).argmin()
        assert found.eer == pytest.approx((fmr[at] + 1 - hit[at]) / 2, abs=1e-4)


@pytest.mark.parametrize("n_people", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_agrees_with_pyeer(monkeypatch, n_people):
    # pyeer asks setuptools' retired module for the path of its HTML report, which is not used here.
    monkeypatch.setitem(sys.modules, "pkg_resources", types.ModuleType("pkg_resources"))
    from pyeer.eer_info import get_eer_stats

    embeddings, labels = people(n_people, 20, 48, 0.24, seed=8)
    genuine, impostor, _ = pairs(embeddings, labels)
    stats = get_eer_stats(genuine.tolist(), impostor.tolist())
    for precision in ("float32", "int8"):
        found = separability(embeddings, labels, bootstrap=0, at_scale=True, precision=precision)
        for ours, theirs in (("eer", "eer"), ("fmr100", "fmr100"), ("fmr1000", "fmr1000"), ("genuine_mean", "gmean"),
                             ("genuine_std", "gstd"), ("impostor_mean", "imean"), ("impostor_std", "istd")):
            assert getattr(found, ours) == pytest.approx(getattr(stats, theirs), abs=1e-4), ours


def test_sets_without_any_overlap_or_any_difference_are_measured():
    apart = np.repeat(np.eye(6, dtype=np.float32), 3, axis=0)
    same = np.ones((12, 4), np.float32)
    for precision in ("float32", "int8"):
        found = separability(apart, np.repeat(np.arange(6), 3), bootstrap=1, at_scale=True, precision=precision)
        assert (found.eer, found.fmr100, found.fmr1000) == (0, 0, 0)
        found = separability(same, np.repeat(np.arange(4), 3), bootstrap=1, at_scale=True, precision=precision)
        assert (found.eer, found.fmr1000) == (0.5, 1)


def test_an_unknown_precision_is_named(faces):
    with pytest.raises(UnknownNameError, match="int8"):
        separability(*faces, precision="int9")


def test_the_table_says_how_a_large_set_was_measured(faces):
    result = measure(Embeddings(*faces), precision="int8", bootstrap=1)
    said = table(result)
    assert f"rates are within {result['score_error']['rate_bound']:.1e}" in said
    assert "jackknife over identities" in said
    assert "int8" not in table(measure(Embeddings(*faces), bootstrap=1))


def test_no_interval_is_made_where_none_was_asked_for(faces):
    found = measure_at_scale(gallery(*faces), intervals=False)
    assert found.intervals == {}
    assert found.moments.without is None

"""Moments without pairs and the jackknife against sets from which a person was really taken out."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation_twin import measures, pairs, people

from negface.evaluation import separability
from negface.evaluation.inputs import gallery, unit_rows
from negface.evaluation.jackknife import deviation, interval
from negface.evaluation.moments import pair_moments
from negface.foundation.errors import InputError

MOMENTS = ("genuine_mean", "genuine_std", "impostor_mean", "impostor_std", "fdr", "dprime")


@pytest.fixture(scope="module")
def faces():
    random = np.random.default_rng(2)
    labels = np.repeat(np.arange(25), random.integers(2, 14, 25))
    centres, _ = people(25, 1, 20, 0.0, seed=2)
    noise = 0.2 * random.gamma(4, 0.25, (25, 1))[labels] * random.standard_normal((len(labels), 20))
    return (centres[labels] + noise).astype(np.float32), labels


def test_moments_are_those_of_the_full_matrix(faces):
    genuine, impostor, _ = pairs(*faces)
    expected, sums = measures(genuine, impostor), pair_moments(gallery(*faces)).whole
    for name in MOMENTS:
        assert float(sums.measures()[name]) == pytest.approx(expected[name], abs=1e-7, rel=1e-6), name
    assert (int(sums.n_genuine), int(sums.n_impostor)) == (len(genuine), len(impostor))


def test_sums_without_each_person_are_those_of_the_set_without_them(faces):
    embeddings, labels = faces
    without = pair_moments(gallery(*faces), without_each=True).without.measures()
    for person in range(25):
        rest = labels != person
        expected = measures(*pairs(embeddings[rest], labels[rest])[:2])
        for name in MOMENTS:
            assert without[name][person] == pytest.approx(expected[name], abs=2e-7, rel=2e-6), (name, person)


def test_threads_change_no_bit(faces, monkeypatch):
    monkeypatch.setattr("negface.evaluation.moments._BLOCK", 16)
    one, three = (pair_moments(gallery(*faces), without_each=True, threads=threads) for threads in (1, 3))
    for name in ("impostor", "impostor_squares"):
        assert getattr(one.whole, name) == getattr(three.whole, name)
        assert np.array_equal(getattr(one.without, name), getattr(three.without, name))


def test_rates_without_a_person_are_close_to_those_of_the_set_without_them():
    """First order: the error is small beside the spread over people."""
    from negface.evaluation import at_scale, jackknife

    embeddings, labels = people(60, 10, 20, 0.33, seed=3)
    kept = {}
    real = jackknife.interval
    try:
        jackknife.interval = lambda name, value, without: kept.update({name: without}) or real(name, value, without)
        at_scale.measure_at_scale(gallery(embeddings, labels))
    finally:
        jackknife.interval = real
    for name in ("eer", "fmr100"):
        true = np.array([getattr(separability(embeddings[labels != who], labels[labels != who], bootstrap=0), name)
                         for who in range(60)])
        assert np.corrcoef(true, kept[name])[0, 1] > 0.9, name
        assert deviation(kept[name]) == pytest.approx(deviation(true), rel=0.25), name


def test_intervals_are_about_those_of_the_bootstrap():
    embeddings, labels = people(150, 8, 24, 0.3, seed=6)
    drawn = separability(embeddings, labels, bootstrap=400)
    left_out = separability(embeddings, labels, bootstrap=1, at_scale=True)
    for name in ("fdr", "eer", "fmr100", "fmr1000", "genuine_mean", "genuine_std", "impostor_std"):
        one, other = (found.intervals[name] for found in (drawn, left_out))
        assert other[0] < getattr(left_out, name) < other[1]
        assert other[1] - other[0] == pytest.approx(one[1] - one[0], rel=0.3), name


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """FDR of people drawn from one distribution, 120 times; the truth from many more people."""
    truth = separability(*people(1200, 4, 12, 0.3, seed=99), bootstrap=0).fdr
    covered = 0
    for seed in range(120):
        moments = pair_moments(gallery(*people(40, 4, 12, 0.3, seed=seed)), without_each=True)
        value = float(moments.whole.measures()["fdr"])
        low, high = interval("fdr", value, moments.without.measures()["fdr"])
        covered += low <= truth <= high
    assert 0.87 <= covered / 120 <= 1.0


def test_a_rate_stays_inside_its_range():
    without = np.array([0.001, 0.03, 0.002, 0.0])
    low, high = interval("eer", 0.002, without)
    assert 0 < low < 0.002 < high < 1
    assert interval("eer", 0.0, np.zeros(4)) == (0.0, 0.0)
    assert interval("fdr", float("nan"), without) == (None, None)


def test_unit_rows_in_order_are_not_copied_and_any_others_are_copied_once(faces):
    embeddings, labels = faces
    ready = gallery(3 * embeddings, labels)
    again = gallery(ready.embeddings, ready.codes)
    assert again.embeddings is ready.embeddings
    mixed = np.random.default_rng(1).permutation(len(labels))
    for scale in (1, np.float32(0.7)):
        moved = gallery(scale * ready.embeddings[mixed], ready.codes[mixed])
        sorted_again = np.argsort(ready.codes[mixed], kind="stable")
        assert np.array_equal(moved.order, sorted_again)
        np.testing.assert_allclose(moved.embeddings, ready.embeddings[mixed[sorted_again]], rtol=0, atol=1.2e-7)
        assert not np.shares_memory(moved.embeddings, ready.embeddings)
    almost = np.array([[1 + 2e-7, 0], [1, 0]], np.float32)
    assert (unit_rows(almost) == [[1, 0], [1, 0]]).all()


def test_unit_rows_do_not_depend_on_the_threads_that_divide_them():
    rows = np.random.default_rng(0).standard_normal((20_001, 37), dtype=np.float32)
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
    assert np.array_equal(unit_rows(rows), (rows / lengths[:, None]).astype(np.float32))
    rows[19_000] = np.nan
    with pytest.raises(InputError, match="row 19000 holds NaN"):
        unit_rows(rows)

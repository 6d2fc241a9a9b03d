"""Vendi score, Fréchet distance, precision and recall against closed forms and slow twins."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation_twin import people
from hypothesis import given
from hypothesis import strategies as st

from negface.evaluation import _fidelity as room
from negface.evaluation._fidelity import fidelity, frechet_distance, inside_manifold, neighbour_radii, vendi_score
from negface.foundation.errors import InputError, MismatchError


def test_vendi_score_of_orthogonal_images_is_their_number_and_of_copies_one():
    assert vendi_score(np.eye(12)[:7]) == pytest.approx(7)
    assert vendi_score(np.repeat(np.eye(12)[:3], 4, axis=0)) == pytest.approx(3)
    assert vendi_score(np.ones((9, 4)) / 2) == pytest.approx(1)


@given(st.integers(2, 30), st.integers(2, 20), st.integers(0, 999))
def test_vendi_score_without_a_kernel_equals_the_one_with(n, dim, seed):
    rows = np.random.default_rng(seed).normal(size=(n, dim))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(rows @ rows.T / n).clip(1e-300)
    assert vendi_score(rows) == pytest.approx(np.exp(-(values * np.log(values)).sum()), rel=1e-6)


def test_a_weight_of_two_is_a_copy():
    rows, _ = people(5, 1, 8)
    weights = np.array([2, 1, 1, 3, 1])
    assert vendi_score(rows, weights) == pytest.approx(vendi_score(np.repeat(rows, weights, axis=0)))


def test_frechet_distance_of_gaussians_has_its_closed_form():
    """Samples whitened to exact moments: means m, covariances A and B that do not commute."""
    from scipy.linalg import sqrtm

    random = np.random.default_rng(0)
    base = random.normal(size=(200, 5))
    base -= base.mean(axis=0)
    base = base @ np.linalg.inv(np.linalg.cholesky(np.cov(base.T))).T
    roots, mean = random.normal(size=(2, 5, 5)), random.normal(size=5)
    one, other = base @ roots[0].T, base @ roots[1].T + mean
    first, second = (root @ root.T for root in roots)
    expected = mean @ mean + np.trace(first + second - 2 * np.real(sqrtm(first @ second)))
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_is_stable_where_images_are_fewer_than_dimensions():
    """Two sets in planes of their own: the closed form needs only their two-dimensional covariances."""
    one, other = np.zeros((3, 40)), np.zeros((3, 40))
    one[:, :2] = [[0, 0], [3, 0], [0, 3]]
    other[:, 2:4] = [[0, 0], [6, 0], [0, 6]]
    traces = np.trace(np.cov(one.T)) + np.trace(np.cov(other.T))
    means = np.square(one.mean(axis=0) - other.mean(axis=0)).sum()
    assert frechet_distance(one, other) == pytest.approx(means + traces)
    assert frechet_distance(one, 2 * one) == pytest.approx(np.square(one.mean(0)).sum() + np.trace(np.cov(one.T)))


def test_radii_and_manifolds_equal_brute_force(monkeypatch):
    monkeypatch.setattr(room, "_ROWS", 7)
    monkeypatch.setattr(room, "_COLUMNS", 5)
    from sklearn.neighbors import NearestNeighbors

    one, other = (np.random.default_rng(seed).normal(size=(n, 4)).astype(np.float32) for seed, n in ((0, 31), (1, 23)))
    expected = NearestNeighbors(n_neighbors=4).fit(one).kneighbors(one)[0][:, -1]
    radii = neighbour_radii(one, 3)
    np.testing.assert_allclose(radii, expected, rtol=1e-4)
    distances = np.linalg.norm(other[:, None] - one[None], axis=2)
    np.testing.assert_array_equal(inside_manifold(other, one, radii), (distances <= radii).any(axis=1))


def test_a_set_that_lost_a_mode_keeps_precision_and_loses_recall():
    real, labels = people(40, 6, 16, 0.2, seed=4)
    kept = labels < 20
    found = fidelity(real[kept], labels[kept], real, labels, feature_network="eye", bootstrap=50)
    precision, recall = found.values["precision"], found.values["recall"]
    assert precision[0] == 1
    assert recall[1] <= recall[0] <= recall[2] < 0.9
    assert found.values["vendi_score"][0] < found.values["reference_vendi_score"][0]


def test_intervals_hold_the_estimate_and_few_images_are_warned_of():
    real, labels = people(40, 4, 16, 0.3)
    made, owners = people(30, 4, 16, 0.3, seed=8)
    result = fidelity(made, owners, real, labels, feature_network="eye", bootstrap=30).to_dict()
    for key in ("vendi_score", "frechet_distance", "precision", "recall"):
        assert result[f"{key}_low"] <= result[key] <= result[f"{key}_high"]
    assert "biased upwards" in result["notes"][0]
    few = fidelity(made[:40], owners[:40], real, labels, feature_network="eye").to_dict()
    assert few["vendi_score_low"] is None


def test_what_cannot_be_compared_is_refused():
    real, labels = people(10, 3, 8)
    with pytest.raises(MismatchError, match="different recognisers"):
        fidelity(real, labels, real, labels, feature_network="x", embedded_by="aa" * 32,
                 reference_embedded_by="bb" * 32)
    with pytest.raises(InputError, match="8 dimensions, the reference 4"):
        fidelity(real, labels, real[:, :4], labels, feature_network="x")
    with pytest.raises(InputError, match="3 images cannot have 3 neighbours"):
        fidelity(real, labels, real[:3], labels[:3], feature_network="x")

"""A planted bias is found, none is found where none was planted, and counts equal a slow twin."""

from __future__ import annotations

import numpy as np
import pytest

from negface.evaluation.bootstrap import multiplicities
from negface.evaluation.causal import MEASURES, causal_effects, table
from negface.foundation.errors import InputError


def planted(noise=(0.4, 0.4), drift=(0.0, 0.0), people=60, pictures=4, dim=32, seed=0):
    """Recogniser of a world where an attribute adds ``noise`` to pictures and pulls people together by ``drift``."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(people, 1, dim)) / np.sqrt(dim)
    common = random.normal(size=dim) / np.sqrt(dim)
    shots = random.normal(size=(people, pictures, dim)) / np.sqrt(dim)
    other = random.normal(size=(people, pictures, dim)) / np.sqrt(dim)
    return np.stack([centres + pull * common + size * (shots if at == 0 else 0.8 * shots + 0.6 * other)
                     for at, (size, pull) in enumerate(zip(noise, drift))])


def test_a_planted_loss_of_genuine_scores_is_recovered():
    found = causal_effects(planted(noise=(0.4, 0.8)), (0, 1), bootstrap=400)
    effect = found["effects"][0]
    assert effect["genuine_mean"]["bias"]
    assert effect["genuine_mean"]["effect"] == pytest.approx(1 / (1 + 0.64) - 1 / (1 + 0.16), abs=0.03)
    assert effect["fnmr"]["bias"]
    assert effect["fnmr"]["effect"] > 0
    assert found["bias_found"]
    assert "BIAS" in table(found)


def test_planted_false_matches_are_recovered():
    effect = causal_effects(planted(drift=(0, 0.5)), (0, 1), bootstrap=400)["effects"][0]
    assert effect["impostor_mean"]["bias"]
    assert effect["fmr"]["bias"]
    assert effect["fmr"]["effect"] > 0


@pytest.mark.parametrize("seed", range(6))
def test_none_is_reported_where_none_was_planted(seed):
    found = causal_effects(planted(seed=seed), (0, 1), bootstrap=400)
    assert not found["bias_found"]
    assert "BIAS" not in table(found)


def test_equal_levels_have_exactly_no_effect():
    images = planted()[:1].repeat(2, axis=0)
    found = causal_effects(images, (0, 1), bootstrap=50)
    assert all(found["effects"][0][name]["effect"] == 0 and not found["effects"][0][name]["bias"] for name in MEASURES)
    assert found["levels"][1]["moved"] == pytest.approx(1)


def test_measures_and_their_draws_equal_counting_pairs():
    images = planted(people=8, pictures=3, drift=(0, 0.3))
    found = causal_effects(images, (0, 1), fmr=0.1, bootstrap=3, seed=4)
    drawn = multiplicities(8, 3, 4)
    unit = images / np.linalg.norm(images, axis=-1, keepdims=True)
    for level in (0, 1):
        genuine, impostor, weights = [], [], []
        for a in range(8):
            genuine += [(a, unit[level, a, i] @ unit[level, a, j]) for i in range(3) for j in range(i)]
            for b in range(a):
                impostor += [unit[level, a, i] @ unit[level, b, j] for i in range(3) for j in range(3)]
                weights += [drawn[a] * drawn[b]] * 9
        scores = np.array([score for _, score in genuine])
        row = found["levels"][level]
        assert row["genuine_mean"] == pytest.approx(scores.mean(), abs=1e-6)
        assert row["fnmr"] == pytest.approx((scores < found["threshold"]).mean())
        assert row["impostor_mean"] == pytest.approx(np.mean(impostor), abs=1e-6)
        assert row["fmr"] == pytest.approx((np.array(impostor) >= found["threshold"]).mean())
        replicates = [np.average(impostor, weights=column) for column in np.array(weights).T]
        assert row["impostor_mean_low"] == pytest.approx(np.quantile(replicates, 0.025), abs=1e-6)


def test_the_threshold_keeps_its_bound_over_all_levels():
    images = planted(drift=(0, 0.5))
    for fmr in (0.01, 0.1):
        found = causal_effects(images, (0, 1), fmr=fmr, bootstrap=1)
        assert fmr - 0.001 < np.mean([row["fmr"] for row in found["levels"]]) <= fmr


@pytest.mark.parametrize(("images", "levels", "said"), [
    (np.ones((2, 5, 3)), (0, 1), "was expected"), (np.ones((2, 1, 3, 4)), (0, 1), "two or more"),
    (planted(), (0,), "for 1 levels"), (planted() * np.nan, (0, 1), "NaN")])
def test_other_shapes_are_refused(images, levels, said):
    with pytest.raises(InputError, match=said):
        causal_effects(images, levels)

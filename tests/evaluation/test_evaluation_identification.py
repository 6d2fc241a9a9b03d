"""Open-set search: a slow twin that walks over every threshold, and cases with a known answer."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation_twin import people

from negface.evaluation._identification import _rates, identification
from negface.foundation.errors import InputError


def test_rates_equal_the_walk_over_every_threshold():
    random = np.random.default_rng(0)
    score = np.round(random.normal(size=300), 1).astype(np.float32)
    mated = random.random(300) < 0.6
    found = mated & (random.random(300) < 0.8)
    codes = np.where(mated, random.integers(0, 20, 300), random.integers(20, 40, 300))
    result = _rates(score, mated, found, codes, (0.05, 0.3), 20, 0)
    for bound in (0.05, 0.3):
        allowed = [threshold for threshold in np.append(np.unique(score), 9)
                   if (score[~mated] >= threshold).mean() <= bound]
        assert result[f"tpir_at_fpir_{bound:g}"] == pytest.approx(
            max((found & (score >= threshold)).sum() / mated.sum() for threshold in allowed))
        assert result[f"threshold_at_fpir_{bound:g}"] == pytest.approx(min(allowed))
    assert result["rank1"] == pytest.approx(found.sum() / mated.sum())
    assert result["rank1_low"] < result["rank1"] < result["rank1_high"]


def test_people_far_apart_are_all_found_and_nobody_else_is():
    images, labels = people(60, 4, 64, 0.03)
    result = identification(images, labels, bootstrap=20)
    assert (result["n_enrolled"], result["n_mated"], result["n_nonmated"]) == (30, 90, 120)
    assert (result["rank1"], result["tpir_at_fpir_0.01"]) == (1, 1)


def test_shuffled_labels_find_nobody():
    images, labels = people(60, 4, 64, 0.03)
    shuffled = np.random.default_rng(0).permutation(labels)
    assert identification(images, shuffled, bootstrap=0)["rank1"] < 0.15


def test_more_enrolled_images_find_more():
    images, labels = people(80, 6, 24, 0.45, seed=2)
    one, three = (identification(images, labels, enrolled_images=k, bootstrap=0) for k in (1, 3))
    assert three["rank1"] > one["rank1"]


def test_a_bound_that_too_few_searches_can_show_is_not_measured():
    images, labels = people(10, 3, 16, 0.1)
    assert identification(images, labels, bootstrap=0)["tpir_at_fpir_0.01"] is None


@pytest.mark.parametrize(("change", "said"), [
    ({"enrolled_share": 1.0}, "between 0 and 1"), ({"enrolled_images": 3}, "0 have more than 3 images"),
    ({"enrolled_share": 0.01}, "0 of 10 people would be enrolled")])
def test_an_enrolment_of_nobody_is_refused(change, said):
    images, labels = people(10, 3, 16, 0.1)
    with pytest.raises(InputError, match=said):
        identification(images, labels, **change)

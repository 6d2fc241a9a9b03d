"""Rates of scored pairs against obvious twins, and intervals over people, folds and linked templates."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation_twin import rates
from hypothesis import given
from hypothesis import strategies as st

from negface.evaluation.bootstrap import interval, multiplicities
from negface.evaluation.pair_scores import fold_units, linked_units, pair_rates, people_units
from negface.evaluation.template_protocol import tar_at_far
from negface.foundation.errors import InputError


def scored(seed=0, n=400, levels=200):
    """Scores with ties, half of them genuine, and the people of the pairs."""
    random = np.random.default_rng(seed)
    same = random.random(n) < 0.5
    scores = (np.round((random.normal(size=n) + 1.5 * same) * levels / 8) / levels * 8).astype(np.float32)
    people = random.integers(0, 30, (n, 2))
    people[:, 1] = np.where(same, people[:, 0], (people[:, 0] + 1 + people[:, 1] % 29) % 30)
    return scores, same, [f"p{code}" for code in people.ravel()]


@given(st.integers(0, 10**6), st.sampled_from([10, 200]))
def test_eer_and_tar_equal_the_walk_over_every_threshold(seed, levels):
    scores, same, people = scored(seed, 120, levels)
    found = pair_rates(scores, same, people_units(people), fars=(0.1, 0.5), bootstrap=0)
    assert found["eer"] == pytest.approx(rates(scores[same], scores[~same])["eer"])
    for row, key in zip(tar_at_far(scores, same, (0.1, 0.5)), ("tar_at_far_1e-1", "tar_at_far_5e-1")):
        assert found[key] == pytest.approx(row["tar"])


def test_intervals_equal_those_of_copying_the_pairs():
    """The slow twin repeats each pair as often as its people were drawn, and counts again."""
    scores, same, people = scored(3, 300)
    units = people_units(people)
    found = pair_rates(scores, same, units, fars=(0.1,), bootstrap=40, seed=5)
    eers, tars = [], []
    for drawn in multiplicities(30, 40, 5).T.astype(int):
        copies = np.where(same, drawn[units.first], drawn[units.first] * drawn[units.second])
        genuine, impostor = (np.repeat(scores[mask], copies[mask]) for mask in (same, ~same))
        eers.append(rates(genuine, impostor)["eer"])
        tars.append(tar_at_far(np.append(genuine, impostor), np.arange(len(genuine) + len(impostor)) < len(genuine),
                               (0.1,))[0]["tar"])
    assert (found["eer_low"], found["eer_high"]) == pytest.approx(interval(np.array(eers)), abs=1e-9)
    assert (found["tar_at_far_1e-1_low"], found["tar_at_far_1e-1_high"]) == pytest.approx(interval(np.array(tars)))


def test_a_bound_that_too_few_impostors_can_show_is_not_measured():
    scores, same, people = scored()
    found = pair_rates(scores, same, people_units(people), fars=(0.01, 1e-3), bootstrap=10)
    assert found["tar_at_far_1e-3"] is None
    assert found["tar_at_far_1e-2"] is not None


def test_folds_are_drawn_where_people_are_not_known():
    scores, same, _ = scored()
    found = pair_rates(scores, same, fold_units(400, 10), bootstrap=50)
    assert (found["resampled"], found["n_resampled"]) == ("folds", 10)
    assert found["eer_low"] < found["eer"] < found["eer_high"]


def test_people_resampled_are_wider_than_pairs_when_pairs_share_people():
    scores, same, people = scored(1, 2000)
    shift = np.random.default_rng(2).normal(size=30)[[int(name[1:]) for name in people[0::2]]]
    by_people = pair_rates(scores + 2 * shift, same, people_units(people), bootstrap=200)
    by_pairs = pair_rates(scores + 2 * shift, same, fold_units(2000, 2000), bootstrap=200)
    width = [found["eer_high"] - found["eer_low"] for found in (by_people, by_pairs)]
    assert width[0] > 1.5 * width[1]


def test_templates_linked_by_genuine_pairs_are_one_person():
    pairs = np.array([[10, 11], [11, 12], [20, 21], [10, 20], [30, 12], [5, 30]])
    units = linked_units(pairs, np.array([1, 1, 1, 0, 0, 1], bool))
    assert units.count == 3
    assert units.first[0] == units.second[1] == units.first[3]
    assert units.first[2] == units.second[2] != units.first[0]
    assert units.first[5] == units.second[5] == units.first[4]


@given(st.integers(0, 10**6))
def test_linking_equals_the_slow_closure(seed):
    random = np.random.default_rng(seed)
    pairs, same = random.integers(0, 25, (30, 2)), random.random(30) < 0.5
    groups = [{name} for name in np.unique(pairs)]
    for one, other in pairs[same]:
        first, second = (next(group for group in groups if name in group) for name in (one, other))
        if first is not second:
            groups.remove(second)
            first |= second
    found = linked_units(pairs, same)
    label = {name: at for at, group in enumerate(groups) for name in group}
    for codes, names in ((found.first, pairs[:, 0]), (found.second, pairs[:, 1])):
        expected = np.array([label[name] for name in names])
        assert ((codes[:, None] == codes) == (expected[:, None] == expected)).all()
    assert found.count == len(groups)


@pytest.mark.parametrize(("scores", "same", "said"), [
    (np.zeros(3), np.ones(3, bool), "cannot give a rate"), (np.array([0, np.nan]), np.array([True, False]), "score 1")])
def test_scores_without_a_rate_are_refused(scores, same, said):
    with pytest.raises(InputError, match=said):
        pair_rates(scores, same, fold_units(len(scores), 1))

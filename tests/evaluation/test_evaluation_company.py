"""Adherence, diversity and leakage: the company without which separability is not printed."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation_twin import people

from negface.evaluation import adherence, feature_diversity, leakage, pose_diversity
from negface.foundation.errors import InputError, MismatchError


def test_adherence_is_the_mean_cosine_to_the_wanted_context():
    contexts, _ = people(12, 1, 16, 0.0)
    images, labels = people(12, 5, 16, 0.2, seed=0)
    found = adherence(images, labels, contexts)
    assert found.adherence == pytest.approx(np.einsum("nd,nd->n", images, contexts[labels]).mean(), abs=1e-6)
    assert found.low < found.adherence < found.high
    expected = ((images @ contexts.T).argmax(1) == labels).mean()
    assert found.rank1 == pytest.approx(expected)
    assert found.to_dict()["adherence_rank1"] == found.rank1


def test_adherence_to_shuffled_contexts_is_nothing():
    contexts, _ = people(40, 1, 64, 0.0)
    images, labels = people(40, 5, 64, 0.05, seed=0)
    right, wrong = adherence(images, labels, contexts), adherence(images, (labels + 1) % 40, contexts)
    assert right.rank1 == 1
    assert wrong.rank1 == 0
    assert abs(wrong.adherence) < 0.1 < right.adherence


def test_adherence_refuses_embeddings_of_another_recogniser():
    images, labels = people(4, 3, 8)
    with pytest.raises(MismatchError, match="not made by the recogniser"):
        adherence(images, labels, images[:4], embedded_by={"hash": "aa"}, conditioner={"hash": "bb"})
    adherence(images, labels, images[:4], embedded_by={"hash": "aa"}, conditioner={"hash": "AA"}, bootstrap=2)
    with pytest.raises(InputError, match="dimensions"):
        adherence(images, labels, np.eye(9)[:4])
    with pytest.raises(InputError, match="bank of 2"):
        adherence(images, labels, images[:2])


def test_pose_spread_of_known_angles():
    """Person 0 turns by +-3 and nods by +-4 degrees: spread 5; person 1 stands still; person 2 has one image."""
    pose = np.array([[3, 4, 0], [-3, -4, 0], [10, 10, 10], [10, 10, 10], [50, 0, 0], [np.nan, 0, 0]])
    found = pose_diversity(pose, np.array([0, 0, 1, 1, 2, 2]), pose_model="drawn").to_dict()
    assert found["pose_spread"] == pytest.approx(2.5)
    assert found["yaw_std"] == pytest.approx(1.5)
    assert found["roll_std"] == 0
    assert found["pose_model"] == "drawn"
    assert found["diversity_n_identities"] == 2


def test_feature_distance_equals_the_mean_over_pairs():
    features, labels = people(7, 4, 9, 0.4)
    found = feature_diversity(features * 3, labels, feature_network="drawn").to_dict()
    expected = [np.mean([1 - features[i] @ features[j] for i in np.flatnonzero(labels == person)
                         for j in np.flatnonzero(labels == person) if i < j]) for person in range(7)]
    assert found["feature_distance"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert found["feature_distance_low"] < found["feature_distance"] < found["feature_distance_high"]


def test_diversity_needs_two_images_of_somebody_and_a_named_network():
    with pytest.raises(InputError, match="two measured images"):
        pose_diversity(np.zeros((3, 3)), np.arange(3), pose_model="drawn")
    with pytest.raises(InputError, match="yaw, pitch, roll"):
        pose_diversity(np.zeros((3, 2)), np.arange(3), pose_model="drawn")
    with pytest.raises(InputError, match="without its network"):
        feature_diversity(np.eye(4), np.array([0, 0, 1, 1]), feature_network="")


@pytest.fixture(scope="module")
def real():
    return people(60, 5, 64, 0.05, seed=21)


def test_copies_of_training_people_leak_and_strangers_do_not(real):
    training, names = real
    strangers, labels = people(10, 3, 64, 0.05, seed=22)
    clean = leakage(strangers, labels, training, names)
    made, labels = np.concatenate([strangers, training[:5]]), np.append(labels, [77] * 5)
    leaky = leakage(made, labels, training, names)
    assert leaky.rate == pytest.approx(clean.rate * 30 / 35 + 5 / 35)
    assert leaky.low <= leaky.rate <= leaky.high
    assert leaky.closest[0]["identity"] == 77
    assert leaky.closest[0]["training_identity"] == 0
    assert (leaky.nearest_image[-5:] == np.arange(5)).all()
    assert leaky.nearest[-5:] == pytest.approx(1, abs=1e-6)


def test_strangers_leak_no_more_than_training_people_do_by_chance(real):
    strangers, labels = people(40, 5, 64, 0.05, seed=23)
    found = leakage(strangers, labels, *real)
    assert found.rate < 3 * found.chance_rate + 0.05
    assert found.chance_low <= found.chance_rate <= found.chance_high
    assert not found.exceeds_chance
    assert leakage(real[0][:100], real[1][:100], *real).exceeds_chance
    assert found.nearest_mean == pytest.approx(found.chance_nearest_mean, abs=0.03)


def test_nearest_training_image_equals_brute_force(real, monkeypatch):
    import negface.evaluation._leakage as module

    monkeypatch.setattr(module, "_ROWS", 7)
    monkeypatch.setattr(module, "_COLUMNS", 11)
    training, names = real
    strangers, labels = people(9, 3, 64, 0.05, seed=24)
    shuffle = np.random.default_rng(0).permutation(len(names))
    found = leakage(strangers, labels, training[shuffle], names[shuffle], threshold=0.3)
    cosines = strangers @ training[shuffle].T
    assert (found.nearest_image == cosines.argmax(1)).all()
    assert found.rate == pytest.approx((cosines.max(1) >= 0.3).mean())
    others = np.where(names[:, None] == names[None], -1, training @ training.T)
    assert found.chance_rate == pytest.approx((others.max(1) >= 0.3).mean())


def test_threshold_holds_fmr_on_the_calibration_pairs(real):
    training, names = real
    calibration = people(50, 4, 16, 0.1, seed=25)
    strangers, labels = people(5, 3, 64, 0.05, seed=24)
    found = leakage(strangers, labels, training, names, calibration=calibration)
    embeddings, people_of = calibration
    first, second = np.triu_indices(len(embeddings), 1)
    different = people_of[first] != people_of[second]
    scores = np.einsum("nd,nd->n", embeddings[first], embeddings[second])[different]
    assert (scores >= found.threshold).mean() == pytest.approx(0.001, abs=2e-4)


def test_leakage_refuses_two_recognisers_and_too_few_people(real):
    strangers, labels = people(5, 3, 64, 0.05, seed=24)
    with pytest.raises(MismatchError, match="different recognisers"):
        leakage(strangers, labels, *real, embedded_by="aa", training_embedded_by="bb")
    with pytest.raises(InputError, match="threshold or a calibration"):
        leakage(strangers, labels, real[0][:5], real[1][:5])

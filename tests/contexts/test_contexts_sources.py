"""Identity sources: reproducible, of the stated distribution, honest about real people and about what fits."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest

from negface.contexts import packing, sources, variation
from negface.contexts.bank import ContextBank, unit_rows
from negface.foundation.errors import IncompleteError, InputError

CONDITIONER = {"name": "edge", "hash": "abc"}


def people(n_people=12, n_images=5, dim=16, seed=0, spread=0.3):
    rng = np.random.default_rng(seed)
    centres = unit_rows(rng.standard_normal((n_people, dim)))
    labels = np.repeat(np.arange(n_people), n_images)
    return unit_rows(centres[labels] + spread * rng.standard_normal((len(labels), dim))), labels


def largest_cosine(bank):
    cosines = bank.contexts.astype(np.float64) @ bank.contexts.T.astype(np.float64)
    return cosines[np.triu_indices(len(bank), 1)].max()


def test_a_uniform_row_does_not_depend_on_how_many_are_drawn():
    few, many = sources.uniform(5, 32, seed=4), sources.uniform(40, 32, seed=4)
    assert np.array_equal(few.contexts, many.contexts[:5])
    assert few.ids == many.ids[:5]
    assert few.hash == sources.uniform(5, 32, seed=4).hash
    assert not np.allclose(few.contexts, sources.uniform(5, 32, seed=5).contexts)


def test_uniform_cosines_have_the_spread_of_the_sphere():
    bank = sources.uniform(300, 128)
    cosines = (bank.contexts @ bank.contexts.T)[np.triu_indices(300, 1)]
    assert abs(cosines.mean()) < 0.002
    assert abs(cosines.std() * math.sqrt(128) - 1) < 0.02


def test_the_chance_of_a_uniform_collision_agrees_with_counting():
    bank = sources.uniform(1000, 24)
    cosines = (bank.contexts @ bank.contexts.T)[np.triu_indices(1000, 1)]
    for limit in (0.0, 0.2, 0.4):
        assert packing.uniform_collision(24, limit) == pytest.approx((cosines > limit).mean(), rel=0.05)
    assert packing.uniform_collision(3, 0.5) == pytest.approx(0.25, rel=1e-4)
    assert packing.uniform_collision(2, 0.5) == pytest.approx(1 / 3, rel=1e-4)


def test_known_codes_meet_their_bound():
    """Simplex, cross-polytope; and the 12 vertices of an icosahedron lie under the cap bound."""
    assert packing.largest_code(5, -0.2) == 6
    assert packing.largest_code(5, -0.5) == 3
    assert packing.largest_code(5, -1.0) == 2
    assert packing.largest_code(7, 0.0) == 14
    assert packing.largest_code(2, 0.5) == 6
    assert 12 <= packing.largest_code(3, 1 / math.sqrt(5)) <= 15
    assert packing.largest_code(512, 0.3) is None


def test_separated_identities_keep_their_distance_and_their_order():
    bank = sources.uniform(60, 12, seed=1, max_cosine=0.55)
    assert largest_cosine(bank) <= 0.55
    assert largest_cosine(sources.uniform(60, 12, seed=1)) > 0.55
    free = sources.uniform(500, 12, seed=1)
    assert all(np.array_equal(context, free.contexts[free.row_of[identity]])
               for identity, context in zip(bank.ids, bank.contexts) if identity in free.row_of)
    fewer = sources.uniform(25, 12, seed=1, max_cosine=0.55)
    assert fewer.ids == bank.ids[:25]


def test_the_search_agrees_with_a_greedy_pass_one_by_one():
    proposals = sources.uniform(700, 8, seed=2).contexts.astype(np.float64)
    kept = []
    for row, proposal in enumerate(proposals):
        if all(float(np.sum(proposal * proposals[other])) <= 0.5 for other in kept):
            kept.append(row)
    found = sources.uniform(len(kept), 8, seed=2, max_cosine=0.5, max_proposals=700)
    assert found.ids == tuple(f"u2-{row:06d}" for row in kept)


def test_the_estimate_says_beforehand_about_how_many_fit():
    expected = sources.uniform_capacity(400, 16, 0.5, max_proposals=1500)
    proposals = sources.uniform(1500, 16, seed=0).contexts
    fitted = len(packing.keep_separated(proposals, 0.5))
    assert 0.6 * fitted < expected.expected < 1.4 * fitted


def test_what_cannot_fit_is_refused_before_the_search():
    with pytest.raises(InputError, match="no more than 3 unit vectors"):
        sources.uniform(4, 16, max_cosine=-0.5)


def test_a_search_ends_and_says_how_far_it_came(caplog):
    with caplog.at_level(logging.WARNING), pytest.raises(IncompleteError, match=r"\d+ of 200 identities .* within 900"):
        sources.uniform(200, 8, max_cosine=0.3, max_proposals=900)
    assert "about" in caplog.text


@pytest.mark.parametrize("arguments", [{"n": 0}, {"n": -3}, {"n": 5, "dim": 1}, {"n": 5, "max_cosine": 1.0},
                                       {"n": 5, "max_cosine": float("nan")}])
def test_impossible_requests_are_refused(arguments):
    with pytest.raises(InputError):
        sources.uniform(**{"dim": 8, **arguments})


def test_an_authentic_context_is_the_normalised_mean_of_its_person():
    embeddings, labels = people()
    order = np.random.default_rng(1).permutation(len(labels))
    bank = sources.authentic(embeddings[order] * 7, labels[order], conditioner=CONDITIONER)
    assert bank.ids == tuple(str(person) for person in range(12))
    for person in range(12):
        mean = embeddings[labels == person].mean(axis=0)
        assert np.allclose(bank.contexts[person], mean / np.linalg.norm(mean), atol=1e-6)
    assert bank.describes_real_people
    assert bank.conditioner == CONDITIONER


def test_authentic_people_may_have_names():
    embeddings, labels = people(n_people=3)
    assert sources.authentic(embeddings, labels, names=["ann", "bob", "eve"]).ids == ("ann", "bob", "eve")
    assert sources.authentic(embeddings, np.array(["x", "y", "z"])[labels]).ids == ("x", "y", "z")
    with pytest.raises(InputError, match="4 labels|labels for 15"):
        sources.authentic(embeddings, labels[:4])


def test_bad_embeddings_are_named():
    embeddings, labels = people()
    embeddings[7, 0] = np.nan
    with pytest.raises(InputError, match="row 7"):
        sources.authentic(embeddings, labels)
    with pytest.raises(InputError, match="row 7"):
        sources.pca(embeddings, 4)


def test_two_stage_keeps_pictures_in_order_and_skips_too_similar_ones():
    embeddings, _ = people(spread=0.15)
    every = sources.two_stage(embeddings, conditioner=CONDITIONER)
    assert len(every) == 60
    assert not every.describes_real_people
    apart = sources.two_stage(embeddings, max_cosine=0.6)
    assert largest_cosine(apart) <= 0.6
    assert len(apart) < 30
    assert sources.two_stage(embeddings, n=5, max_cosine=0.6).ids == apart.ids[:5]
    with pytest.raises(IncompleteError, match="of 60 identities"):
        sources.two_stage(embeddings, n=60, max_cosine=0.6)


def test_pca_draws_follow_mean_and_covariance_of_their_people():
    rng = np.random.default_rng(0)
    # A narrow cloud far from the origin, where normalising hardly changes the distribution.
    mean, scales = np.array([10.0, 0, 0, 0, 0, 0]), np.array([0, 1.2, 0.9, 0.6, 0.3, 0])
    cloud = unit_rows(mean + rng.standard_normal((4000, 6)) * scales)
    bank = sources.pca(cloud, 4000, seed=1)
    assert bank.provenance["parameters"]["components"] == 5
    assert np.allclose(bank.contexts.mean(axis=0), cloud.mean(axis=0), atol=0.005)
    assert np.allclose(np.cov(bank.contexts.T), np.cov(cloud.T), atol=0.0012)
    assert np.abs(bank.contexts[:, 5]).max() < 1e-6


def test_pca_keeps_only_the_components_asked_for():
    embeddings, _ = people(dim=16)
    bank = sources.pca(embeddings, 50, components=3)
    singular = np.linalg.svd(bank.contexts, compute_uv=False)
    assert singular[4] < 1e-5 < singular[3]
    with pytest.raises(InputError, match=r"1 … 16"):
        sources.pca(embeddings, 4, components=99)


def test_a_pca_row_does_not_depend_on_how_many_are_drawn_and_knows_its_parent():
    embeddings, labels = people()
    parent = sources.authentic(embeddings, labels, conditioner=CONDITIONER)
    few, many = sources.pca(parent, 7, seed=2), sources.pca(parent, 300, seed=2)
    assert np.array_equal(few.contexts, many.contexts[:7])
    assert few.ids == many.ids[:7]
    assert few.conditioner == CONDITIONER
    assert few.provenance["parent"] == parent.hash
    assert few.provenance["derived_from_real_people"]
    assert not few.describes_real_people
    apart = sources.pca(parent, 20, seed=2, max_cosine=0.5)
    assert largest_cosine(apart) <= 0.5


def test_pca_of_one_person_is_refused():
    with pytest.raises(InputError, match="at least 2"):
        sources.pca(people()[0][:1], 4)
    with pytest.raises(InputError, match="all the same"):
        sources.pca(np.repeat(people()[0][:1], 5, axis=0), 4)


def test_angular_variation_has_the_drawn_cosine_and_belongs_to_the_image():
    bank = sources.uniform(6, 32)
    rows, images = np.repeat(np.arange(6), 50), np.tile(np.arange(50), 6)
    varied = variation.angular(bank, rows, images, lower=0.6, seed=3)
    assert varied.dtype == np.float32
    assert np.allclose(np.linalg.norm(varied, axis=1), 1, atol=1e-6)
    cosines = (varied * bank.contexts[rows]).sum(axis=1)
    assert 0.6 - 1e-5 <= cosines.min() < 0.63
    assert 0.97 < cosines.max() <= 1 + 1e-6
    assert cosines.mean() == pytest.approx(0.8, abs=0.02)
    assert np.array_equal(variation.angular(bank, [4], [7], lower=0.6, seed=3)[0], varied[4 * 50 + 7])
    assert np.allclose(variation.angular(bank, [2], [0], lower=1.0)[0], bank.contexts[2], atol=1e-7)
    with pytest.raises(InputError, match="lower"):
        variation.angular(bank, [0], [0], lower=1.5)


def test_the_safe_bound_keeps_a_varied_context_nearest_to_its_own_identity():
    bank = sources.uniform(30, 6, seed=1)
    bounds = variation.safe_lower_bounds(bank, 0.1)
    rows, images = np.repeat(np.arange(30), 20), np.tile(np.arange(20), 30)
    safe = variation.angular(bank, rows, images, lower=bounds)
    assert ((safe @ bank.contexts.T).argmax(axis=1) == rows).all()
    unsafe = variation.angular(bank, rows, images, lower=0.1)
    assert ((unsafe @ bank.contexts.T).argmax(axis=1) != rows).any()
    assert variation.safe_lower_bounds(ContextBank(bank.contexts[:1], ("a",)), 0.4).tolist() == [0.4]

"""Negatives are what their names say, against a slow float64 twin that sorts the whole cosine matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from negface.contexts import ContextBank, Selection, negatives, similarity, sources
from negface.contexts.bank import unit_rows
from negface.contexts.negatives import select
from negface.foundation import registry
from negface.foundation.errors import FormatError, InputError, MismatchError, UnknownNameError

RANKED = ("close", "mid", "far")


def bank(n=40, dim=16, seed=0, prefix="a"):
    rows = unit_rows(np.random.default_rng(seed).standard_normal((n, dim)))
    return ContextBank(rows, tuple(f"{prefix}{row}" for row in range(n)))


def twin(identities, pool, strategy):
    """Sort every row of the full float64 cosine matrix, one cosine at a time."""
    chosen = []
    for identity, context in zip(identities.ids, identities.contexts.astype(np.float64)):
        others = [row for row, other in enumerate(pool.ids) if other != identity]
        cosines = [float(np.sum(context * pool.contexts[row].astype(np.float64))) for row in others]
        ascending = sorted(range(len(others)), key=lambda k: (cosines[k], k))
        if strategy == "close":
            best = max(cosines)
            chosen.append(next(row for row, cosine in zip(others, cosines) if cosine == best))
        else:
            chosen.append(others[ascending[0 if strategy == "far" else (len(others) - 1) // 2]])
    return np.array(chosen)


@pytest.mark.parametrize("strategy", RANKED)
@pytest.mark.parametrize("n", [2, 3, 40, 41])
def test_ranked_negatives_agree_with_the_slow_twin(strategy, n):
    identities = bank(n)
    found = select(identities, strategy)
    assert np.array_equal(found.indices, twin(identities, identities, strategy))
    assert np.array_equal(found.negatives, identities.contexts[found.indices])
    assert (found.kind == 0).all()


def test_far_negative_is_the_least_similar_context():
    identities = bank(60)
    cosines = identities.contexts @ identities.contexts.T
    found = negatives.cosines(identities, select(identities, "far"))
    assert np.allclose(found, cosines.min(axis=1), atol=1e-6)


def test_mid_negative_leaves_as_many_others_below_as_its_rank_says():
    identities = bank(60)
    cosines = identities.contexts.astype(np.float64) @ identities.contexts.T.astype(np.float64)
    chosen = select(identities, "mid").indices
    for row, negative in enumerate(chosen):
        others = np.delete(cosines[row], row)
        assert np.count_nonzero(others < cosines[row, negative] - 1e-12) == (59 - 1) // 2


@given(st.lists(st.integers(0, 4), min_size=3, max_size=30), st.sampled_from(RANKED), st.integers(1, 31))
@settings(max_examples=60, deadline=None)
def test_equal_cosines_go_to_the_lower_index(repeats, strategy, block_rows):
    """Copies of five vectors: nearly every decision is a tie."""
    rows = unit_rows(np.random.default_rng(7).standard_normal((5, 24)))[repeats]
    identities = ContextBank(rows, tuple(f"r{row}" for row in range(len(repeats))))
    found = select(identities, strategy, block_rows=block_rows)
    assert np.array_equal(found.indices, twin(identities, identities, strategy))


@pytest.mark.parametrize("strategy", RANKED)
def test_the_answer_is_the_same_for_every_block_size_and_thread_count(strategy):
    identities = bank(700, dim=64)
    whole = select(identities, strategy)
    threads = torch.get_num_threads()
    try:
        for block_rows, count in ((1, 1), (13, 2), (512, 1), (5000, 2)):
            torch.set_num_threads(count)
            assert np.array_equal(select(identities, strategy, block_rows=block_rows).indices, whole.indices)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("strategy", RANKED)
def test_a_coarse_matrix_product_changes_no_answer(strategy, monkeypatch):
    """Errors as large as the rounding band allows are put right by the float64 decision."""
    identities, noise = bank(200, dim=12), np.random.default_rng(5)
    expected = twin(identities, identities, strategy)
    honest = similarity._strips

    def noisy(*arguments):
        for start, strip in honest(*arguments):
            strip += noise.uniform(-0.9, 0.9, strip.shape).astype(np.float32) * np.float32(1e-3)
            yield start, strip

    monkeypatch.setattr(similarity, "_strips", noisy)
    monkeypatch.setattr(similarity, "rounding_band", lambda *_: 1e-3)
    assert np.array_equal(select(identities, strategy).indices, expected)


def test_close_pairs_that_float32_cannot_tell_apart_are_told_apart():
    base = unit_rows(np.random.default_rng(1).standard_normal((1, 512)))[0]
    pool = np.repeat(base[None], 50, axis=0)
    pool[np.arange(50), np.arange(50)] += np.linspace(-4e-8, 4e-8, 50).astype(np.float32)
    identities = ContextBank(base[None], ("a",))
    others = ContextBank(pool, tuple(f"b{row}" for row in range(50)))
    cosines = [np.dot(base.astype(np.float64), row.astype(np.float64)) / np.linalg.norm(row.astype(np.float64))
               for row in pool]
    for strategy, wanted in (("close", max(cosines)), ("far", min(cosines))):
        chosen = select(identities, strategy, pool=others).indices[0]
        assert abs(cosines[chosen] - wanted) < 1e-14


@pytest.mark.parametrize("strategy", [*RANKED, "random", "previous"])
def test_a_negative_never_shares_the_identity_even_in_a_pool_that_holds_the_bank(strategy):
    whole = bank(30)
    shuffled = whole.subset(np.random.default_rng(3).permutation(30))
    identities = whole.subset(slice(0, 12))
    found = select(identities, strategy, pool=shuffled)
    assert all(shuffled.ids[row] != identity for row, identity in zip(found.indices, identities.ids))
    if strategy in RANKED:
        assert np.array_equal(found.indices, twin(identities, shuffled, strategy))


def test_a_foreign_pool_is_searched_whole():
    identities, pool = bank(5), bank(9, seed=1, prefix="b")
    for strategy in RANKED:
        assert np.array_equal(select(identities, strategy, pool=pool).indices, twin(identities, pool, strategy))


def test_previous_is_the_row_before_and_the_first_takes_the_last_of_the_pool():
    whole = bank(10)
    assert select(whole, "previous").indices.tolist() == [9, 0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert select(whole.subset(slice(0, 3)), "previous", pool=whole).indices.tolist() == [9, 0, 1]
    with pytest.raises(InputError, match="does not hold 'a0'"):
        select(whole, "previous", pool=bank(10, prefix="b"))


def test_random_is_seeded_uniform_and_depends_on_the_identity_only():
    whole = bank(12, dim=4)
    draws = np.stack([select(whole, "random", seed=seed).indices for seed in range(600)])
    assert not (draws == np.arange(12)).any()
    counts = np.bincount(draws[:, 5], minlength=12)
    assert counts[5] == 0
    # 600 draws over 11 others: 54.5 each, standard deviation 7; a fixed seed, so no flakiness.
    assert 25 < np.delete(counts, 5).min() <= np.delete(counts, 5).max() < 90
    part = select(whole.subset([5, 2]), "random", pool=whole, seed=0)
    assert part.indices.tolist() == draws[0, [5, 2]].tolist()


def test_per_image_draws_depend_on_the_image_alone_and_never_hit_the_identity():
    whole = bank(8, dim=4)
    rows, images = np.repeat(np.arange(8), 20), np.tile(np.arange(20), 8)
    found = negatives.select_per_image(whole, "random", rows, images, seed=1)
    assert len(found) == 160
    assert not (found.indices == rows).any()
    assert len(set(found.indices[:20].tolist())) > 1
    assert found.provenance["scope"] == "image"
    backwards = negatives.select_per_image(whole, "random", rows[::-1], images[::-1], seed=1)
    assert np.array_equal(backwards.indices[::-1], found.indices)
    assert negatives.draw(whole, 3, 7, seed=1) == found.indices[3 * 20 + 7]


@pytest.mark.parametrize("strategy", ["far", "null-zero", "none", "previous"])
def test_scope_image_is_refused_where_nothing_is_drawn(strategy):
    with pytest.raises(InputError, match="scope 'image'"):
        negatives.select_per_image(bank(), strategy, [0], [0])


def test_kinds_without_a_pool_member_follow_the_contract():
    identities = bank(4)
    for strategy, kind in (("none", 4), ("null-learned", 3), ("null-zero", 2), ("antipodal", 1)):
        found = select(identities, strategy)
        assert found.kind.dtype == np.uint8
        assert (found.kind == kind).all()
        assert (found.indices == -1).all()
        assert found.negatives.dtype == np.float32
        if kind >= 3:
            assert np.isnan(found.negatives).all()
    assert not select(identities, "null-zero").negatives.any()
    assert np.array_equal(select(identities, "antipodal").negatives, -identities.contexts)
    assert np.allclose(negatives.cosines(identities, select(identities, "antipodal")), -1)


def test_every_strategy_is_registered_with_a_paper_and_works():
    identities = bank(5)
    assert set(negatives.names()) == {"none", "close", "mid", "mid-with-self", "far", "random", "previous", "null-zero",
                                      "null-learned", "antipodal"}
    for name in negatives.names():
        assert registry.entry("negative", name).paper
        assert select(identities, name).strategy == name


def test_a_saved_selection_comes_back_and_equal_ones_are_identical_files(tmp_path):
    for number, strategy in enumerate(("far", "null-learned", "null-zero", "antipodal")):
        made = select(bank(), strategy)
        made.save(tmp_path / f"{number}a.safetensors")
        select(bank(), strategy).save(tmp_path / f"{number}b.safetensors")
        back = Selection.load(tmp_path / f"{number}a.safetensors")
        assert np.array_equal(back.negatives, made.negatives, equal_nan=True)
        assert np.array_equal(back.kind, made.kind)
        assert np.array_equal(back.indices, made.indices)
        assert back.provenance == made.provenance
        assert (tmp_path / f"{number}a.safetensors").read_bytes() == (tmp_path / f"{number}b.safetensors").read_bytes()


def test_a_truncated_or_inconsistent_selection_is_refused(tmp_path):
    path = tmp_path / "negatives.safetensors"
    made = select(bank(), "far")
    made.save(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FormatError, match="not a complete"):
        Selection.load(path)
    wrong = made.negatives.copy()
    wrong[3] = np.nan
    with pytest.raises(InputError, match="row 3 holds NaN"):
        Selection(made.kind, made.indices, wrong)
    with pytest.raises(InputError, match="row 0 is -1 for a member"):
        Selection(made.kind, np.full(40, -1), made.negatives)
    with pytest.raises(InputError, match="no kind of negative"):
        Selection(np.full(40, 5, np.uint8), np.full(40, -1), made.negatives)


def test_a_selection_from_real_people_says_so():
    real = ContextBank(bank().contexts, bank().ids, {"describes_real_people": True})
    assert select(bank(3, prefix="x"), "far", pool=real).provenance["describes_real_people"]
    assert not select(bank(), "far").provenance["describes_real_people"]


def test_wrong_use_is_refused_with_advice():
    with pytest.raises(UnknownNameError, match="unknown negative 'fra'; did you mean 'far'"):
        select(bank(), "fra")
    with pytest.raises(InputError, match="length 8, the bank 16"):
        select(bank(), "far", pool=bank(dim=8))
    for strategy in (*RANKED, "random", "previous"):
        with pytest.raises(InputError, match="nobody but 'a0'"):
            select(bank(1), strategy)
    assert len(select(bank(1), "null-zero")) == 1
    edge = ContextBank(bank().contexts, bank().ids, {"conditioner": {"name": "edge", "hash": "1"}})
    other = ContextBank(bank().contexts, bank().ids, {"conditioner": {"name": "mobile", "hash": "2"}})
    with pytest.raises(MismatchError, match="the pool expects"):
        select(edge, "far", pool=other)


def test_uniform_contexts_reach_the_cosines_of_the_published_bank():
    """facts of the released bank, scaled down: 1,500 of 512 dimensions have their farthest near -0.145."""
    identities = sources.uniform(1500, 512, seed=0)
    far = negatives.cosines(identities, select(identities, "far"))
    close = negatives.cosines(identities, select(identities, "close"))
    assert -0.155 < far.mean() < -0.135
    assert 0.135 < close.mean() < 0.155

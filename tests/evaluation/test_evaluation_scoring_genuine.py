"""People's own pairs, scored in a stream and counted: against keeping every score, and what of it a device may do."""

from __future__ import annotations

import tracemalloc
from functools import partial

import numpy as np
import pytest
import torch
from evaluation_twin import measures, pairs, people

import negface.evaluation._separability as module
from negface.cli import evaluate as command
from negface.cli.common import Engine
from negface.cli.main import main
from negface.evaluation import MEASURES, scoring, separability
from negface.evaluation import operating_points as points
from negface.evaluation.company import measure
from negface.evaluation.genuine import count_genuine, distinct_genuine, missed_genuine
from negface.evaluation.inputs import gallery
from negface.evaluation.moments import pair_moments
from negface.evaluation.ranked import LAST_BIN, BinnedScores, SortedScores, bin_of
from negface.foundation.devices import check_device
from negface.foundation.errors import InputError
from negface.perception import Embeddings

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def binned(scores):
    """Counts of scores, with a look into a bin that reads the scores themselves, and which bins were looked into."""
    looks = []

    def look(bins):
        looks.append(np.flatnonzero(bins).tolist())
        return np.unique(scores[bins[bin_of(scores)]], return_counts=True)

    return BinnedScores(np.bincount(bin_of(scores), minlength=LAST_BIN + 1), look), looks


@pytest.mark.parametrize("seed", range(6))
def test_counted_scores_answer_as_sorted_ones(seed):
    random = np.random.default_rng(seed)
    scores = (random.normal(0.3, 0.3, 400) if seed % 2 else random.integers(-4, 5, 400) / 4).clip(-1, 1)
    scores = np.concatenate([scores, [1 + 1e-7, -1 - 1e-7, 1, -1]]).astype(np.float32)
    kept, (counted, _) = SortedScores(scores), binned(scores)
    asked = np.concatenate([random.uniform(-1.1, 1.1, 50), random.choice(scores, 50), np.arange(-9, 10) / 8,
                            [-np.inf, np.inf]])
    np.testing.assert_array_equal(counted.below(asked), kept.below(asked))
    np.testing.assert_array_equal(counted.ranked(np.arange(404)), kept.ranked(np.arange(404)))
    for low, high in [(-np.inf, -1), (0.25, 0.25 + 2**-15), (-1, 1), (1, np.inf)]:
        np.testing.assert_array_equal(counted.between(low, high), kept.between(low, high))


def test_a_threshold_on_the_lattice_needs_no_look():
    counted, looks = binned(np.random.default_rng(0).uniform(-1, 1, 1000).astype(np.float32))
    counted.below(np.arange(-scoring.LATTICE, scoring.LATTICE + 1) / scoring.LATTICE)
    assert not looks
    counted.prepare([30_000, 40_000, *bin_of([0.1, 0.2]).tolist()])
    counted.below(0.1 + 1e-7)
    assert len(looks) <= 1, "what was looked at once stays"


@pytest.mark.parametrize("threads", [1, 3])
def test_a_stream_counts_what_would_be_kept(monkeypatch, threads):
    """In many batches, and in several tiles for people with more images than one tile takes."""
    random = np.random.default_rng(1)
    labels = np.repeat(np.arange(30), random.integers(1, 12, 30))
    embeddings = people(30, 1, 8, 0.0)[0][labels] + 0.3 * random.standard_normal((len(labels), 8))
    group = gallery(embeddings, labels)
    scores, codes = scoring.genuine_scores(group)
    twin = pairs(group.embeddings, group.codes)
    np.testing.assert_allclose(np.sort(scores), np.sort(twin[0]), atol=1e-6)
    monkeypatch.setattr(scoring, "_BATCH_ELEMENTS", 300)
    monkeypatch.setattr(scoring, "_OWN_SIDE", 16)
    sums, bins = count_genuine(group, threads=threads)
    np.testing.assert_allclose(sums, [np.bincount(codes, scores.astype(np.float64)**power, minlength=30)
                                      for power in (1, 2)], rtol=1e-12)
    np.testing.assert_array_equal(bins, np.bincount(bin_of(scores), minlength=LAST_BIN + 1))
    wanted = np.zeros(LAST_BIN + 1, bool)
    wanted[bin_of(0.4) : bin_of(0.9)] = True
    values, copies = distinct_genuine(group, wanted, threads=threads)
    expected = np.unique(scores[wanted[bin_of(scores)]], return_counts=True)
    np.testing.assert_array_equal(values, expected[0])
    np.testing.assert_array_equal(copies, expected[1])
    np.testing.assert_array_equal(missed_genuine(group, (0.5, 0.8), threads=threads),
                                  [np.bincount(codes[scores < mark], minlength=30) for mark in (0.5, 0.8)])


def test_people_in_several_tiles_have_each_pair_once(monkeypatch):
    group = gallery(*people(3, 40, 8, 0.4))
    whole, _ = scoring.genuine_scores(group)
    monkeypatch.setattr(scoring, "_OWN_SIDE", 16)
    parts, codes = scoring.genuine_scores(group)
    for person in range(3):
        np.testing.assert_allclose(np.sort(parts[codes == person]), np.sort(whole[codes == person]), atol=1e-6)
    np.testing.assert_allclose(count_genuine(group)[0][0], np.bincount(codes, whole), rtol=1e-6)


def test_memory_does_not_grow_with_genuine_pairs():
    """What numpy holds at most: sixteen times the pairs, the same number of images."""
    def peak(n_people, n_images):
        group = gallery(*people(n_people, n_images, 8, 0.4))
        tracemalloc.start()
        genuine = BinnedScores(pair_moments(group, without_each=True).genuine_bins, partial(distinct_genuine, group))
        genuine.below(np.linspace(0.1, 0.9, 5))
        missed_genuine(group, (0.3,))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found, group.n_genuine

    (few, n_few), (many, n_many) = peak(160, 10), peak(4, 400)
    assert n_many > 40 * n_few
    assert many < few + n_many, "less than a byte a pair; to keep scores and codes takes 8"


def test_moments_hold_where_nearly_all_pairs_are_genuine():
    embeddings, labels = people(2, 300, 8, 0.2, seed=1)
    embeddings, labels = embeddings[:303], labels[:303]
    genuine, impostor, _ = pairs(embeddings, labels)
    assert len(genuine) > 49 * len(impostor)
    expected, found = measures(genuine, impostor), pair_moments(gallery(embeddings, labels)).whole.measures()
    for name in ("impostor_mean", "impostor_std", "genuine_mean", "fdr"):
        assert float(found[name]) == pytest.approx(expected[name], abs=1e-6, rel=1e-6), name


def test_many_genuine_pairs_are_measured_at_scale(monkeypatch):
    assert "bootstrap" in separability(*people(5, 10), bootstrap=5).interval_method
    monkeypatch.setattr(module, "_LARGE_GENUINE", 200)
    assert "jackknife" in separability(*people(5, 10), bootstrap=5).interval_method


def test_rates_hold_where_their_products_outgrow_64_bits():
    """125 million genuine and 125 billion impostor pairs have the rates of 5 and 5,000 in the same places."""
    genuine, impostor = np.float32([0.1, 0.3, 0.5, 0.7, 0.9]), np.float32([-0.4, -0.2, 0.0, 0.2, 0.4])
    edges = np.arange(-scoring.LATTICE, scoring.LATTICE + 1) / scoring.LATTICE

    def counts(times):
        of_genuine, of_impostor = (np.bincount(bin_of(scores), minlength=LAST_BIN + 1)
                                   for scores in (genuine, impostor))
        own = BinnedScores(of_genuine * times, lambda bins: (
            genuine[bins[bin_of(genuine)]], np.full(bins[bin_of(genuine)].sum(), times)))
        return points.Counts(edges, of_impostor * 1000 * times, impostor, own, np.full(5, 1000 * times))

    few, many = counts(1), counts(25_000_000)
    assert many.n_impostor * len(many.genuine) > 2**63
    assert points.bin_of_eer(few) == points.bin_of_eer(many)
    assert points.equal_error(few) == points.equal_error(many)
    assert points.equal_error(many)[0] == pytest.approx(0.2)
    assert points.miss_at_fmr(few, 100) == points.miss_at_fmr(many, 100)


@pytest.mark.parametrize("d", [1, 4])
def test_int8_measures_operating_points_at_either_end(d):
    """Copies of one picture under many names put every threshold at 1; torch's product of single numbers is wrong."""
    random = np.random.default_rng(d)
    labels = np.repeat(np.arange(8), 4)
    embeddings = np.sign(random.standard_normal((8, d)))[labels].astype(np.float32)
    embeddings[::3] *= -1
    exact = measures(*pairs(embeddings, labels)[:2])
    for precision in ("float32", "int8"):
        found = separability(embeddings, labels, bootstrap=1, at_scale=True, precision=precision)
        for name in ("eer", "fmr100", "fmr1000", "genuine_mean", "impostor_mean"):
            assert getattr(found, name) == pytest.approx(exact[name], abs=1e-6), (precision, name)


def test_a_second_int8_pass_ends_where_cosines_end(monkeypatch):
    """Everybody alike: the operating points lie within the slack of 1, beyond which there are no cells."""
    random = np.random.default_rng(0)
    embeddings, labels = 1 + 0.02 * random.standard_normal((40, 8)), np.repeat(np.arange(10), 4)
    embeddings += 0.01 * random.standard_normal((10, 8))[labels]
    exact = measures(*pairs(embeddings, labels)[:2])
    monkeypatch.setattr("negface.evaluation.lookout.spans", lambda *_: [(0.1, 0.2)])
    found = separability(embeddings, labels, bootstrap=0, precision="int8")
    assert found.score_error["slack"] > 1 - found.thresholds["fmr1000"]
    for name in ("eer", "fmr100", "fmr1000"):
        assert getattr(found, name) == pytest.approx(exact[name], abs=0.02), name


@pytest.mark.parametrize("seed", range(4))
def test_odd_little_sets_get_the_values_of_the_full_matrix(seed):
    """Ties everywhere, exact in float32: people with one image, a single genuine pair, all thresholds on few values."""
    random = np.random.default_rng(seed)
    sizes = np.array([2, 1, 1, 1] if seed == 0 else random.integers(1, 6, 6).tolist() + [2])
    labels = np.repeat(np.arange(len(sizes)), sizes)
    base = np.sign(random.standard_normal((len(sizes), 16)))
    embeddings = np.where(random.random((len(labels), 16)) < 0.15, -1, 1) * base[labels]
    expected = measures(*pairs(embeddings, labels)[:2])
    for way in ({}, {"at_scale": True}, {"precision": "int8"}):
        found = separability(embeddings.astype(np.float32), labels, bootstrap=5, **way)
        for name in ("eer", "fmr100", "fmr1000", "genuine_mean", "impostor_mean", "impostor_std"):
            assert getattr(found, name) == pytest.approx(expected[name], abs=2e-5), (way, name)


@pytest.mark.parametrize("name", ["tpu", "cuda:x", "cpu:0", "mps", "cuda:999"])
def test_a_device_that_is_not_usable_is_refused_before_any_work(tmp_path, capsys, name):
    with pytest.raises(InputError, match="device"):
        check_device(name)
    with pytest.raises(InputError, match="device"):
        separability("not even an array", None, device=name)
    assert main(["evaluate", "separability", str(tmp_path / "missing.npz"), "--device", name]) == 2
    assert "cpu" in capsys.readouterr().err


def test_the_device_reaches_the_measurement(monkeypatch):
    seen = {}
    monkeypatch.setattr(module, "check_device", seen.setdefault)
    monkeypatch.setattr(module, "measure_at_scale", lambda people_, **options: seen.update(options) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        measure(Embeddings(*people()), device="cuda:1")
    assert seen["device"] == "cuda:1"


def test_a_cluster_takes_no_device():
    with pytest.raises(InputError, match="--engine local --device cuda"):
        with command._spread(Engine.ray, None, None, "cuda"):
            pass


@GPU
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_gpu_measures_what_the_processor_does(precision):
    embeddings, labels = people(60, 12, 30, 0.33, seed=3)
    here, there = (separability(embeddings, labels, bootstrap=1, at_scale=True, precision=precision, device=device,
                                training=embeddings[::7]) for device in ("cpu", "cuda"))
    for name in MEASURES:
        assert getattr(there, name) == pytest.approx(getattr(here, name), abs=1e-5), name
        assert there.intervals[name] == pytest.approx(here.intervals[name], rel=1e-2), name
    np.testing.assert_allclose(there.nearest[0], here.nearest[0], atol=1e-5)

"""The 10-fold verification rule against a slow twin that tries thresholds one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from negface.evaluation.verification import Verification, verification, verify, wilson
from negface.foundation.errors import InputError


def pairs_of(n: int, seed: int, noise: float = 0.9, dim: int = 16, order: str = "mixed"):
    """Embeddings of n pairs: genuine ones share a direction."""
    rng = np.random.default_rng(seed)
    same = rng.random(n) < 0.5 if order == "mixed" else np.arange(n) % 2 == 0
    same[:2] = True, False
    first, second = rng.normal(size=(2, n, dim))
    second = np.where(same[:, None], first + noise * second, second)
    return np.stack([first, second], axis=1).reshape(2 * n, dim), same


def slow_twin(embeddings: np.ndarray, same: np.ndarray, folds: int, far_target: float):
    """The rule as it is told: contiguous folds, and every threshold tried by itself."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    distance = ((unit[0::2] - unit[1::2]) ** 2).sum(1)
    accuracies, thresholds, tars, fars = [], [], [], []
    for test in np.array_split(np.arange(len(same)), folds):
        train = np.setdiff1d(np.arange(len(same)), test)
        tried = np.arange(0, 4, 0.01)
        genuine, impostors = distance[train][same[train]], distance[train][~same[train]]
        best = tried[np.argmax([(genuine < t).sum() + (impostors >= t).sum() for t in tried])]
        accuracies.append(((distance[test] < best) == same[test]).mean())
        thresholds.append(best)
        fine = np.arange(0, 4, 0.001)
        rates = [(impostors < t).mean() for t in fine]
        threshold = 0.0
        if max(rates) >= far_target:
            at = max(i for i, rate in enumerate(rates) if rate <= far_target)
            threshold = fine[at]
            if at + 1 < len(fine):
                threshold += (far_target - rates[at]) / (rates[at + 1] - rates[at]) * (fine[at + 1] - fine[at])
        tars.append((distance[test] < threshold)[same[test]].mean())
        fars.append((distance[test] < threshold)[~same[test]].mean())
    return accuracies, thresholds, tars, fars


@pytest.mark.parametrize(("n", "folds", "target"), [(50, 10, 0.1), (43, 10, 1e-3), (60, 7, 0.25), (40, 2, 0.5)])
def test_counting_all_thresholds_at_once_equals_trying_each(n, folds, target):
    embeddings, same = pairs_of(n, seed=n, order="alternating")
    found = verification(embeddings, same, folds=folds, far_target=target)
    accuracies, thresholds, tars, fars = slow_twin(embeddings, same, folds, target)
    assert found.accuracies == pytest.approx(accuracies, abs=1e-12)
    assert found.thresholds == pytest.approx(thresholds, abs=1e-12)
    assert (found.tar, found.far) == pytest.approx((np.mean(tars), np.mean(fars)), abs=1e-12)
    assert found.tar_std == pytest.approx(np.std(tars), abs=1e-12)


def test_tar_agrees_with_the_interpolation_of_scipy():
    """Where FAR passes the target between two steps, the spline of degree one and linear interpolation are the same."""
    from scipy.interpolate import interp1d

    from negface.evaluation.verification import _crossing

    rng = np.random.default_rng(3)
    thresholds = np.arange(0, 4, 0.001)
    rates = np.sort(rng.choice(np.arange(0, 2001) / 2000, len(thresholds)))
    rates[0] = 0.0
    for target in (0.00123, 0.03333, 0.71717):
        assert _crossing(rates, thresholds, target) == pytest.approx(float(interp1d(rates, thresholds)(target)))


def test_a_distance_equal_to_the_threshold_is_not_accepted():
    from negface.evaluation.verification import accepted

    counts = accepted(np.array([0.0, 0.01, 0.015, 3.999]), np.zeros(4, int), 1, np.array([0.0, 0.01, 0.02]))
    assert counts.tolist() == [[0, 1, 3]]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(20, 60))
def test_scaling_embeddings_changes_nothing(seed, n):
    embeddings, same = pairs_of(n, seed)
    scaled = embeddings * np.random.default_rng(seed).uniform(0.5, 3, (2 * n, 1))
    one, other = verification(embeddings, same), verification(scaled, same)
    assert one.accuracy == pytest.approx(other.accuracy, abs=1 / n)
    assert one.eer == pytest.approx(other.eer, abs=2 / min(same.sum(), (~same).sum()))


def identical_or(second_of_impostors):
    """Forty pairs: genuine ones are equal, impostors as given."""
    first = np.random.default_rng(0).normal(size=(40, 64))
    same = np.arange(40) % 2 == 0
    second = np.where(same[:, None], first, second_of_impostors(first))
    return verification(np.stack([first, second], 1).reshape(80, 64), same)


def test_perfect_pairs_are_all_accepted():
    found = identical_or(lambda first: np.random.default_rng(1).normal(size=first.shape))
    assert (found.accuracy, found.tar, found.eer) == (1.0, 1.0, 0.0)
    assert found.accuracy_low < 1.0 == found.accuracy_high
    assert found.thresholds == pytest.approx((0.01,) * 10)


def test_nothing_is_accepted_where_the_far_is_never_reached():
    """The published rule: antipodes lie beyond the last threshold, so the second pass falls back to 0."""
    found = identical_or(lambda first: -first)
    assert (found.accuracy, found.tar, found.far) == (1.0, 0.0, 0.0)


def test_tar_is_not_measured_where_a_fold_has_no_impostor():
    embeddings, _ = pairs_of(40, seed=1)
    same = np.arange(40) < 20
    found = verification(embeddings, same)
    assert found.to_dict()["tar"] is None
    assert 0 <= found.accuracy <= 1


def test_the_decisions_of_the_folds_are_kept_pair_by_pair():
    embeddings, same = pairs_of(203, seed=4)
    found = verification(embeddings, same)
    sizes = [203 // 10 + (k < 203 % 10) for k in range(10)]
    by_fold = np.split(found.right, np.cumsum(sizes)[:-1])
    assert tuple(part.mean() for part in by_fold) == pytest.approx(found.accuracies)
    assert "right" not in found.to_dict()


def test_wilson_interval_of_a_known_share():
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)


@pytest.mark.parametrize(("change", "said"), [
    (lambda e, s: (e[:-1], s), "79 embeddings for 40 pairs"), (lambda e, s: (e, s.astype(float)), "bool"),
    (lambda e, s: (e, np.ones(40, bool)), "all pairs are genuine"), (lambda e, s: (e[:10], s[:5]), "10 folds"),
    (lambda e, s: (np.where(np.arange(80)[:, None] == 7, np.nan, e), s), "row 7 holds NaN")])
def test_wrong_input_is_named(change, said):
    with pytest.raises(InputError, match=said):
        verification(*change(*pairs_of(40, seed=2)))


def test_a_bin_and_its_list_give_the_same_figures(tmp_path, face):
    """Twelve pairs of drawn faces, a linear recogniser: list and .bin, flip summed raw before normalising."""
    import torch

    from negface.datasets import codec, convert_pairs, load_rgb, open_pairs
    from negface.perception import Declaration, Recognizer

    lines = ["image_a,image_b,same"]
    for person in range(6):
        (tmp_path / f"{person}").mkdir()
        for image in range(2):
            (tmp_path / f"{person}/{image}.png").write_bytes(codec("png").encode(face(person, image, 16)))
        lines += [f"{person}/0.png,{person}/1.png,1", f"{person}/0.png,{(person + 1) % 6}/1.png,0"]
    (tmp_path / "pairs.csv").write_text("\n".join(lines) + "\n")
    convert_pairs(tmp_path / "pairs.csv", tmp_path / "drawn.bin")
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 8))
    eyes = Recognizer.from_module(module, Declaration(name="tiny", size=(16, 16), dim=8))
    pairs = open_pairs(tmp_path / "drawn.bin")
    found = verify(eyes, pairs, folds=3, batch=5)
    assert isinstance(found, Verification)
    assert found == verify(eyes, open_pairs(tmp_path / "pairs.csv"), folds=3, batch=24)
    vectors = eyes.embed(np.stack([load_rgb(data) for data in pairs.images()]), flip=True)
    assert verification(vectors, pairs.same, folds=3).accuracies == found.accuracies
    assert verify(eyes, pairs, folds=3, flip=False).eer == verification(
        eyes.embed(np.stack([load_rgb(data) for data in pairs.images()])), pairs.same, folds=3).eer

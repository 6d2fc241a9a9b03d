"""The IJB template protocol against a slow twin and scikit-learn's ROC."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from negface.datasets import IjbMeta
from negface.evaluation.template_protocol import (
    tar_at_far,
    template_embeddings,
    template_scores,
    template_verification,
)
from negface.foundation.errors import InputError


def a_set(seed: int = 0, n: int = 60):
    rng = np.random.default_rng(seed)
    templates = rng.choice([3, 4, 9, 12, 40], n)
    templates[:5] = [3, 4, 9, 12, 40]
    return rng.normal(size=(n, 8)).astype(np.float32), templates, rng.integers(0, 6, n), rng.uniform(0.2, 1, n)


def slow_templates(raw, templates, media, scores, norm_score):
    """Loops over templates and media, as the protocol is told."""
    rows = []
    for template in sorted(set(templates)):
        total = np.zeros(raw.shape[1])
        for medium in sorted(set(media[templates == template])):
            frames = [raw[i].astype(float) * (1 if scores is None else scores[i])
                      / (1 if norm_score else np.linalg.norm(raw[i].astype(float)))
                      for i in range(len(raw)) if templates[i] == template and media[i] == medium]
            total += np.mean(frames, axis=0)
        rows.append(total / np.linalg.norm(total))
    return np.stack(rows)


@pytest.mark.parametrize("norm_score", [True, False])
@pytest.mark.parametrize("weighed", [True, False])
def test_templates_equal_the_slow_twin(norm_score, weighed):
    raw, templates, media, scores = a_set()
    scores = scores if weighed else None
    found, ids = template_embeddings(raw, templates, media, scores, norm_score=norm_score)
    assert ids.tolist() == [3, 4, 9, 12, 40]
    assert found == pytest.approx(slow_templates(raw, templates, media, scores, norm_score), abs=1e-6)


def test_frames_of_one_video_count_once():
    raw = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], np.float32)
    found, _ = template_embeddings(raw, np.ones(4, int), np.array([7, 7, 7, 8]))
    assert found == pytest.approx(np.array([[1, 1]]) / np.sqrt(2))


def test_scores_are_cosines_of_the_pairs(monkeypatch):
    monkeypatch.setattr("negface.evaluation.template_protocol._BLOCK", 3)
    raw, templates, media, scores = a_set(1)
    found, ids = template_embeddings(raw, templates, media, scores)
    pairs = np.array([[3, 40], [9, 9], [12, 4], [40, 3], [4, 4]])
    expected = [found[list(ids).index(a)] @ found[list(ids).index(b)] for a, b in pairs]
    assert template_scores(found, ids, pairs) == pytest.approx(expected, abs=1e-6)
    with pytest.raises(InputError, match="template 41"):
        template_scores(found, ids, np.array([[3, 41]]))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(4, 300), levels=st.integers(2, 400))
def test_the_published_figure_is_the_nearest_corner_of_the_roc(seed, n, levels):
    from sklearn.metrics import roc_curve

    rng = np.random.default_rng(seed)
    same = rng.random(n) < 0.4
    same[:2] = True, False
    scores = rng.integers(0, levels, n) + 0.3 * levels * same
    fars = (1e-3, 0.01, 0.1, 0.35)
    fpr, tpr, _ = roc_curve(same, scores)
    fpr, tpr = fpr[::-1], tpr[::-1]
    every, all_tpr, _ = roc_curve(same, scores, drop_intermediate=False)
    for far, row in zip(fars, tar_at_far(scores, same, fars)):
        near = np.abs(fpr - far).argmin()
        assert (row["tar_nearest"], row["far_nearest"]) == pytest.approx((tpr[near], fpr[near]))
        assert row["tar"] == pytest.approx(all_tpr[every <= far].max())
        assert row["far"] <= far


def test_the_protocol_runs_on_meta_data():
    raw, templates, media, scores = a_set(2)
    pairs = np.array([[3, 4], [9, 9], [12, 40], [4, 4]], np.int32)
    meta = IjbMeta(Path("loose_crop"), tuple(f"{k}.jpg" for k in range(60)), templates, media,
                   np.zeros((60, 5, 2), np.float32), scores, pairs, np.array([False, True, False, True]))
    found = template_verification(raw, meta, fars=(0.5,))
    assert (found["n_templates"], found["n_pairs"], found["n_genuine"]) == (5, 4, 2)
    assert found["operating_points"][0]["tar"] == 1.0


def test_what_does_not_fit_is_named():
    raw, templates, media, scores = a_set(3)
    with pytest.raises(InputError, match="'media': 59"):
        template_embeddings(raw, templates, media[1:], scores)
    with pytest.raises(InputError, match="template embeddings: row 0 is all zero"):
        template_embeddings(np.array([[1.0, 0], [-1, 0]]), np.zeros(2, int), np.arange(2))
    with pytest.raises(InputError, match="cannot give a rate"):
        tar_at_far(np.zeros(3), np.ones(3, bool))

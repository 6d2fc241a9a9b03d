"""The slow, obvious twin of the room: an n x n matrix, every threshold, and the bootstrap by re-scoring copies."""

from __future__ import annotations

import numpy as np

BOUNDS = {"fmr100": 0.01, "fmr1000": 0.001}


def people(n_identities=12, n_images=5, dim=16, spread=0.25, seed=0):
    """Unit embeddings around random directions, some people tighter than others, and their labels."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((n_identities, dim))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    widths = spread * random.gamma(4, 0.25, (n_identities, 1, 1))
    images = centres[:, None] + widths * random.standard_normal((n_identities, n_images, dim))
    images = images.reshape(-1, dim).astype(np.float32)
    return images / np.linalg.norm(images, axis=1, keepdims=True), np.repeat(np.arange(n_identities), n_images)


def pairs(embeddings, labels):
    """Genuine and impostor cosines from the full matrix; row i, column j, i < j."""
    unit = np.asarray(embeddings, np.float64)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    cosines = (unit @ unit.T).astype(np.float32)
    first, second = np.triu_indices(len(unit), 1)
    same = labels[first] == labels[second]
    return cosines[first, second][same], cosines[first, second][~same], (first, second, same)


def rates(genuine, impostor, genuine_weights=None, impostor_weights=None):
    """EER, FMR100, FMR1000 by walking over every threshold."""
    gw = np.ones(len(genuine)) if genuine_weights is None else genuine_weights
    iw = np.ones(len(impostor)) if impostor_weights is None else impostor_weights
    thresholds = np.append(np.unique(np.concatenate([genuine, impostor])), np.float32(np.inf))
    gs, is_ = np.argsort(genuine), np.argsort(impostor)
    gsum, isum = np.append(0, gw[gs].cumsum()), np.append(0, iw[is_].cumsum())
    fnmr = gsum[np.searchsorted(genuine[gs], thresholds)] / gsum[-1]
    fmr = 1 - isum[np.searchsorted(impostor[is_], thresholds)] / isum[-1]
    # Ties are ties, whatever the last bit says.
    at = np.abs(fmr - fnmr).round(12).argmin()
    out = {"eer": (fmr[at] + fnmr[at]) / 2}
    for name, bound in BOUNDS.items():
        out[name] = fnmr[fmr <= bound + 1e-12].min()
    return out


def measures(genuine, impostor, genuine_weights=None, impostor_weights=None):
    """All measures of weighted pairs."""
    out = rates(genuine, impostor, genuine_weights, impostor_weights)
    for name, scores, weights in (("genuine", genuine, genuine_weights), ("impostor", impostor, impostor_weights)):
        scores = scores.astype(np.float64)
        mean = np.average(scores, weights=weights)
        out[f"{name}_mean"] = mean
        out[f"{name}_std"] = np.sqrt(np.average((scores - mean) ** 2, weights=weights))
    out["fdr"] = (out["genuine_mean"] - out["impostor_mean"]) ** 2 / (out["genuine_std"]**2 + out["impostor_std"]**2)
    out["dprime"] = np.sqrt(2 * out["fdr"])
    return out


def rescored(embeddings, labels, drawn):
    """Measures of one bootstrap draw of people, by copying their images and scoring again.

    A copy is another set of images with the person's own name: pairs across copies of one person are left out.
    """
    parts = [np.flatnonzero(labels == person) for person in drawn]
    images = np.concatenate(parts)
    copy = np.repeat(np.arange(len(drawn)), [len(part) for part in parts])
    unit = embeddings[images].astype(np.float64)
    cosines = (unit @ unit.T).astype(np.float32)
    first, second = np.triu_indices(len(images), 1)
    one_copy = copy[first] == copy[second]
    one_person = labels[images][first] == labels[images][second]
    scores = cosines[first, second]
    return measures(scores[one_copy], scores[~one_person])

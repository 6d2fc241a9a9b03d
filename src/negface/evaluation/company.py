"""Separability with its company, as one plain result: what was not measured says so by being ``None``.

Joins the embeddings of a set with whatever else is there: contexts and conditioner embeddings (adherence), poses and
features (diversity), training embeddings (leakage). The command and the recipes share it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from negface.contexts import ContextBank
from negface.foundation.errors import InputError, MismatchError
from negface.perception import Embeddings

from ._adherence import adherence, image_adherence
from ._diversity import feature_diversity, pose_diversity
from ._leakage import check_one_recogniser, leakage
from ._separability import separability
from .tails import MapBlocks

NOT_MEASURED = {
    "adherence": ("adherence", "adherence_low", "adherence_high", "adherence_rank1"),
    "pose": ("pose_spread", "pose_spread_low", "pose_spread_high", "pose_model"),
    "features": ("feature_distance", "feature_distance_low", "feature_distance_high", "feature_network"),
    "leakage": ("leakage_rate", "leakage_rate_low", "leakage_rate_high", "leakage_chance_rate", "leakage_chance_low",
                "leakage_chance_high", "leakage_exceeds_chance"),
}


def measure(judged: Embeddings, *, contexts: ContextBank | None = None, conditioned: Embeddings | None = None,
            pose: Any = None, pose_model: str = "not named", features: Embeddings | None = None,
            training: Embeddings | None = None, calibration: Embeddings | None = None, conditioner: Any = None,
            bootstrap: int = 1000, seed: int = 0, threads: int | None = None, force: bool = False,
            precision: str = "float32", device: str = "cpu",
            map_blocks: MapBlocks | None = None) -> dict[str, Any]:
    """Measure all that the inputs allow; plain data with ``_low``/``_high`` beside every measure.

    Args:
        judged: the set's embeddings by the judge.
        contexts, conditioned: the bank and the same images' embeddings by the conditioner: adherence. Identities are
            matched by name with the bank's ids; without names, labels are rows of the bank.
        pose: ``[n, 3]`` yaw, pitch, roll in degrees, in the order of ``judged``.
        features: embeddings of the same images by a network that is neither; its name is reported.
        training, calibration: training people and real people for the threshold, by the judge: leakage.
        conditioner: name and hash or hash, where ``contexts`` does not say.
        precision: of the scores, ``float32`` or ``int8`` (docs/scoring.md).
        device: ``cpu``, ``cuda`` or ``cuda:N``, of the scores; a GPU asks for the way of large sets.
        map_blocks: spreads the pass over all pairs (``tails``); asks for the way of large sets.

    ``diversity`` is ``genuine_std``, the spread under the judge. Errors: as of the single measures.
    """
    conditioner = conditioner or (contexts.conditioner if contexts else None) or _recogniser(conditioned)
    shared: dict[str, Any] = {"bootstrap": bootstrap, "seed": seed}
    check_one_recogniser(_recogniser(judged), _recogniser(training))
    found = separability(judged.embeddings, judged.labels, threads=threads, precision=precision, device=device,
                         judge=_recogniser(judged), conditioner=conditioner, force=force, map_blocks=map_blocks,
                         training=training.embeddings if training is not None else None, **shared)
    out = found.to_dict()
    out |= {f"diversity{end}": out[f"genuine_std{end}"] for end in ("", "_low", "_high")}
    out |= {key: None for keys in NOT_MEASURED.values() for key in keys}
    out["diversity_is"] = "genuine_std"
    if conditioned is not None:
        if contexts is None:
            raise InputError("conditioner embeddings were given without the bank of contexts", where="adherence")
        out |= adherence(conditioned.embeddings, wanted_rows(conditioned, contexts), contexts.contexts, force=force,
                         embedded_by=_recogniser(conditioned), conditioner=contexts.conditioner, **shared).to_dict()
    if pose is not None:
        out |= pose_diversity(pose, judged.labels, pose_model=pose_model, **shared).to_dict()
    if features is not None:
        named = (_recogniser(features) or {}).get("name", "not named")
        out |= feature_diversity(features.embeddings, features.labels, feature_network=named, **shared).to_dict()
    if training is not None:
        out |= leakage_of(judged, training, calibration, nearest=found.nearest, **shared)
    _name(out["closest_pairs"], {"a": judged.images, "b": judged.images},
          {"a_identity": judged.identities, "b_identity": judged.identities})
    for people in out["outliers"].values():
        _name(people, {}, {"identity": judged.identities})
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in out.items()}


def leakage_of(judged: Embeddings, training: Embeddings, calibration: Embeddings | None = None, *,
               bootstrap: int = 1000, seed: int = 0,
               nearest: tuple[np.ndarray, np.ndarray] | None = None) -> dict[str, Any]:
    """``leakage`` of files of embeddings, pictures and people of the closest pairs by name; plain data."""
    out = leakage(judged.embeddings, judged.labels, training.embeddings, training.labels,
                  calibration=(calibration.embeddings, calibration.labels) if calibration else None,
                  embedded_by=_recogniser(judged), training_embedded_by=_recogniser(training), bootstrap=bootstrap,
                  seed=seed, nearest=nearest).to_dict()
    _name(out["leakage_closest"], {"image": judged.images, "training_image": training.images},
          {"identity": judged.identities, "training_identity": training.identities})
    return out


def per_image(judged: Embeddings, *, contexts: ContextBank | None = None, conditioned: Embeddings | None = None,
              training: Embeddings | None = None, calibration: Embeddings | None = None, seed: int = 0,
              force: bool = False) -> dict[str, np.ndarray]:
    """What can be told of every image, float64 ``[n]``, as ``groups.fairness`` takes it.

    ``adherence`` (cosine), ``adherence_rank1`` and ``leakage_rate`` (0 or 1), as far as the inputs allow. Arguments and
    errors as of ``measure``; besides, ``MismatchError`` where judge and conditioner embedded other pictures.
    """
    out: dict[str, np.ndarray] = {}
    if (conditioned is None) != (contexts is None):
        raise InputError("the bank of contexts and the embeddings by the conditioner belong together",
                         where="adherence", fix="give both, or neither")
    if conditioned is not None and contexts is not None:
        if len(conditioned) != len(judged) or (judged.images and conditioned.images
                                               and judged.images != conditioned.images):
            raise MismatchError("judge and conditioner did not embed the same pictures in the same order",
                                where="adherence", fix="embed one dataset with both")
        cosines, first = image_adherence(conditioned.embeddings, wanted_rows(conditioned, contexts), contexts.contexts,
                                         embedded_by=_recogniser(conditioned), conditioner=contexts.conditioner,
                                         force=force)
        out |= {"adherence": cosines, "adherence_rank1": first.astype(np.float64)}
    if training is not None:
        found = leakage(judged.embeddings, judged.labels, training.embeddings, training.labels, bootstrap=0, seed=seed,
                        calibration=(calibration.embeddings, calibration.labels) if calibration else None,
                        embedded_by=_recogniser(judged), training_embedded_by=_recogniser(training), n_closest=1)
        out["leakage_rate"] = (found.nearest >= found.threshold).astype(np.float64)
    return out


def wanted_rows(images: Embeddings, bank: ContextBank) -> np.ndarray:
    """The bank's row of every image: by identity id where the embeddings know names, else the label itself."""
    if not images.identities:
        return images.labels
    unknown = [name for name in images.identities if name not in bank.row_of]
    if unknown:
        raise InputError(f"identity {unknown[0]!r} is not in the bank ({len(unknown)} of {len(images.identities)} are "
                         f"not)", where="contexts", fix="give the bank that the images were generated from")
    return np.array([bank.row_of[name] for name in images.identities])[images.labels]


def _recogniser(images: Embeddings | None) -> dict[str, str] | None:
    return images.recognizer if images is not None else None


def _name(items: list[dict[str, Any]], images: Mapping[str, tuple[str, ...]],
          identities: Mapping[str, tuple[str, ...]]) -> None:
    """Add picture names beside indices and put identity names in place of labels, where they are known."""
    for item in items:
        for key, names in images.items():
            if names:
                item[f"{key}_name"] = names[item[key]]
        for key, names in identities.items():
            if names:
                item[key] = names[item[key]]


ROWS = (
    ("FDR", "fdr", "{:.3f}"), ("EER", "eer", "{:.2%}"), ("FMR100", "fmr100", "{:.2%}"),
    ("FMR1000", "fmr1000", "{:.2%}"), ("d'", "dprime", "{:.3f}"), ("genuine mean", "genuine_mean", "{:.4f}"),
    ("genuine std", "genuine_std", "{:.4f}"), ("impostor mean", "impostor_mean", "{:.4f}"),
    ("impostor std", "impostor_std", "{:.4f}"), ("adherence", "adherence", "{:.4f}"),
    ("diversity: genuine std", "diversity", "{:.4f}"), ("diversity: pose, degrees", "pose_spread", "{:.2f}"),
    ("diversity: features", "feature_distance", "{:.4f}"), ("leakage", "leakage_rate", "{:.2%}"),
)


def table(result: Mapping[str, Any]) -> str:
    """The result for a person: one line a measure, 95 % interval beside it, "not measured" where it was not."""
    lines = [f"{result['n_identities']} identities, {result['n_images']} images: {result['n_genuine']} genuine and "
             f"{result['n_impostor']} impostor pairs, all of them"]
    for label, key, form in ROWS:
        low, high = result.get(f"{key}_low"), result.get(f"{key}_high")
        value = result.get(key)
        text = "not measured" if key not in ("fdr", "dprime") else "not defined"
        if value is not None:
            text = form.format(value) + (f"  [{form.format(low)}, {form.format(high)}]" if low is not None else "")
        if key == "leakage_rate" and value is not None:
            said = "above chance" if result["leakage_exceeds_chance"] else "not above chance"
            text += f"  ({said}: training people among themselves {result['leakage_chance_rate']:.2%})"
        lines.append(f"  {label:<26}{text}")
    if result.get("score_error"):
        lines.append(f"  scored in int8, again in float32 around the operating points: rates are within "
                     f"{result['score_error']['rate_bound']:.1e}, a score elsewhere within "
                     f"{result['score_error']['score_bound']:.3f}")
    if str(result.get("interval_method") or "").startswith("jackknife"):
        lines.append("  intervals by the jackknife over identities: the set is too large to draw again")
    if result["judge_is_conditioner"]:
        lines.append("  WARNING: the judge is the conditioner; it grades its own work")
    elif result["judge_is_conditioner"] is None:
        lines.append("  note: judge or conditioner is not known, so it was not checked that they differ")
    return "\n".join(lines)

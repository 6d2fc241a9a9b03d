"""Measures by group against each group measured alone, planted gaps, and where groups come from."""

from __future__ import annotations

import json

import numpy as np
import pytest
from evaluation_twin import pairs, people

from negface.evaluation import separability
from negface.evaluation.bootstrap import multiplicities
from negface.evaluation.group_labels import groups_of, read_groups
from negface.evaluation.groups import fairness
from negface.evaluation.pair_groups import pair_fairness, pair_groups
from negface.evaluation.pair_scores import fold_units, pair_rates, people_units
from negface.foundation.errors import FormatError, InputError, MismatchError
from negface.perception import Embeddings


def two_groups(spread=(0.15, 0.15), n=40):
    """Two groups of n people, each with its own spread; people of one group lie no closer than others."""
    one, labels = people(n, 4, 32, spread[0], seed=1)
    other, _ = people(n, 4, 32, spread[1], seed=2)
    return np.concatenate([one, other]), np.concatenate([labels, labels + n]), np.repeat(["a", "b"], 4 * n)


def test_each_group_is_measured_within_itself():
    images, labels, groups = two_groups()
    order = np.random.default_rng(0).permutation(len(labels))
    found = fairness(images[order], labels[order], groups[order], bootstrap=20)
    for name in "ab":
        alone = separability(images[groups == name], labels[groups == name], bootstrap=0)
        assert found["groups"][name]["eer"] == pytest.approx(alone.eer)
        assert found["groups"][name]["fdr"] == pytest.approx(alone.fdr, rel=1e-5)


def test_rates_at_the_common_threshold_equal_counting_pairs():
    images, labels, groups = two_groups((0.1, 0.6))
    found = fairness(images, labels, groups, bootstrap=20)
    assert found["threshold"] == pytest.approx(separability(images, labels, bootstrap=0).thresholds["fmr1000"])
    for name in "ab":
        genuine, impostor, _ = pairs(images[groups == name], labels[groups == name])
        group = found["groups"][name]
        assert group["fnmr_at_threshold"] == pytest.approx((genuine < found["threshold"]).mean())
        assert group["fmr_at_threshold"] == pytest.approx((impostor >= found["threshold"]).mean())


def test_a_planted_gap_is_found_and_named():
    images, labels, groups = two_groups((0.15, 0.9))
    gap = fairness(images, labels, groups, bootstrap=200)["gaps"]["fnmr_at_threshold"]
    assert (gap["worst"], gap["best"]) == ("b", "a")
    assert 0 < gap["gap_low"] < gap["gap"] < gap["gap_high"]


def test_equal_groups_show_no_gap_that_excludes_zero():
    images, labels, groups = two_groups((0.6, 0.6))
    gaps = fairness(images, labels, groups, bootstrap=200)["gaps"]
    assert all(gaps[key]["gap_low"] <= 0 for key in ("fnmr_at_threshold", "fmr_at_threshold", "eer"))


def test_small_groups_are_counted_and_not_measured():
    images, labels, groups = two_groups()
    groups = np.where(labels < 3, "few", np.where(labels == 5, "", groups))
    found = fairness(images, labels, groups, bootstrap=0)
    assert found["too_small"] == {"few": 3}
    assert found["n_without_group"] == 4
    assert set(found["groups"]) == {"a", "b"}
    with pytest.raises(InputError, match="only 1 of 3 groups has 37 people"):
        fairness(images, labels, groups, min_people=37, bootstrap=0)


def test_groups_come_from_a_csv_by_identity_or_from_a_populations_truth(tmp_path):
    given = Embeddings(np.eye(4, dtype=np.float32), np.array([0, 0, 1, 1]), ("ann", "bob"),
                       ("ann/0.jpg", "ann/1.jpg", "bob/0.jpg", "bob/1.jpg"))
    (tmp_path / "people.csv").write_text("identity,region\nann,north\nbob,\n")
    assert groups_of(given, read_groups(tmp_path / "people.csv")["region"], "region") == ["north", "north", "", ""]
    rows = [{"image": image, "monk_tone": tone, "nuisances": {"age": age}, "attributes": [sex]}
            for image, tone, age, sex in (("ann/0.jpg", 2, 29.9, "feminine"), ("ann/1.jpg", 2, 60, "feminine"),
                                          ("bob/0.jpg", 10, 30, "masculine"), ("bob/1.jpg", 4, 59, "masculine"))]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    truth = read_groups(tmp_path / "labels.jsonl")
    assert groups_of(given, truth["age_band"], "age_band") == ["under 30", "60 and over", "30 to 59", "30 to 59"]
    assert groups_of(given, truth["skin_tone"], "skin_tone") == ["Monk 1-3", "Monk 1-3", "Monk 8-10", "Monk 4-7"]


def test_a_file_without_groups_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("name,region\nann,north\n")
    (tmp_path / "b.jsonl").write_text('{"image": "x"}\n')
    for name, said in (("a.csv", "column 'identity' or 'image'"), ("b.jsonl", "line 1 lacks a usable 'monk_tone'")):
        with pytest.raises(FormatError, match=said):
            read_groups(tmp_path / name)
    with pytest.raises(MismatchError, match="none of 1 images"):
        groups_of(Embeddings(np.eye(1), np.array([0]), ("ann",)), {"zoe": "x"}, "region")


def paired(noise, n=60, seed=0):
    """Pairs of two groups of n people each: a genuine and an impostor pair a person and shot, some noisier."""
    random = np.random.default_rng(seed)
    scores, same, names, groups = [], [], [], []
    for group, width in zip("ab", noise):
        for person in range(n):
            for _ in range(4):
                scores += [0.6 + width * random.normal(), 0.15 * random.normal()]
                same += [True, False]
                names += [f"{group}{person}", f"{group}{person}", f"{group}{person}", f"{group}{(person + 1) % n}"]
                groups += [group, group]
    return np.array(scores, np.float32), np.array(same), people_units(names), np.array(groups)


def test_pairs_of_a_group_are_measured_alone_and_at_the_common_threshold():
    scores, same, units, groups = paired((0.1, 0.3))
    found = pair_fairness(scores, same, units, groups, bootstrap=100)
    assert (scores[~same] >= found["threshold"]).mean() == pytest.approx(0.01, abs=0.002)
    for name in "ab":
        own = groups == name
        alone = pair_rates(scores[own], same[own], fold_units(own.sum(), 10), bootstrap=0)
        assert found["groups"][name]["eer"] == alone["eer"]
        assert found["groups"][name]["fnmr_at_threshold"] == (scores[own & same] < found["threshold"]).mean()
    gap = found["gaps"]["fnmr_at_threshold"]
    assert (gap["worst"], gap["best"]) == ("b", "a")
    assert 0 < gap["gap_low"] < gap["gap"] < gap["gap_high"]


def test_a_pair_belongs_to_a_group_only_if_both_pictures_do():
    names = ("x/1.jpg", "x/2.jpg", "x/1.jpg", "y/1.jpg", "y/1.jpg", "z/1.jpg")
    people = ("x", "x", "x", "y", "y", "z")
    table = {"x": "old", "y": "old", "z": "young", "x/2.jpg": "young"}
    assert pair_groups(names, people, table, "age").tolist() == ["", "old", ""]
    with pytest.raises(MismatchError, match="no picture of the benchmark"):
        pair_groups(names, people, {"q": "old"}, "age")


def test_groups_of_pairs_without_people_or_support_are_not_measured():
    scores, same, units, groups = paired((0.1, 0.1), n=25)
    groups = groups.astype("<U4")
    groups[groups == "b"] = np.where(np.arange((groups == "b").sum()) < 8, "few", "b")
    found = pair_fairness(scores, same, units, groups, bootstrap=10)
    assert found["too_small"] == {"few": 2}
    with pytest.raises(InputError, match="people are not known"):
        pair_fairness(scores, same, fold_units(len(same), 10), groups)


def test_intervals_of_a_group_come_from_draws_of_everybody():
    """The slow twin takes the group's people out of each draw of all people, so gaps are paired over shared people."""
    images, labels, groups = two_groups((0.1, 0.6))
    found = fairness(images, labels, groups, bootstrap=30, seed=3)
    drawn, threshold = multiplicities(80, 30, 3), found["threshold"]
    for name, rows in (("a", slice(0, 40)), ("b", slice(40, 80))):
        unit, codes = images[groups == name], labels[groups == name] % 40
        scores = unit @ unit.T
        own, upper = codes[:, None] == codes[None], np.triu(np.ones(scores.shape, bool), 1)
        replicates = {"fnmr_at_threshold": [], "fmr_at_threshold": []}
        for column in drawn[rows].T:
            weights = np.outer(column[codes], column[codes])
            genuine, impostor = column[codes][:, None] * own * upper, weights * ~own * upper
            replicates["fnmr_at_threshold"].append((genuine * (scores < threshold)).sum() / genuine.sum())
            replicates["fmr_at_threshold"].append((impostor * (scores >= threshold)).sum() / impostor.sum())
        for key, values in replicates.items():
            expected = np.quantile(values, [0.025, 0.975])
            assert [found["groups"][name][f"{key}_{end}"] for end in ("low", "high")] == pytest.approx(expected)

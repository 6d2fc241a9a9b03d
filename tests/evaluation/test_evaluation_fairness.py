"""Measures by group against each group measured alone, planted gaps, and where groups come from."""

from __future__ import annotations

import json

import numpy as np
import pytest
from evaluation_twin import pairs, people

from negface.contexts import ContextBank
from negface.evaluation import identification, separability
from negface.evaluation.bootstrap import multiplicities
from negface.evaluation.company import measure, per_image
from negface.evaluation.group_gaps import table
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


def test_what_is_told_of_images_equals_each_group_told_alone():
    """Means over images and spreads within people against loops; intervals against draws of everybody, slowly."""
    images, labels, groups = two_groups(n=20)
    random = np.random.default_rng(5)
    cosines, yaw = random.normal(0.6, 0.1, len(labels)), random.normal(0, 5, len(labels))
    cosines[3], yaw[7] = np.nan, np.nan
    order = random.permutation(len(labels))
    found = fairness(images[order], labels[order], groups[order], images={"adherence": cosines[order]},
                     attributes={"yaw": yaw[order]}, bootstrap=30, seed=3)["groups"]
    drawn = multiplicities(40, 30, 3)
    for name, people_of_group in (("a", range(20)), ("b", range(20, 40))):
        spreads = {person: np.nanstd(yaw[labels == person]) for person in people_of_group}
        assert found[name]["adherence"] == pytest.approx(np.nanmean(cosines[groups == name]))
        assert found[name]["yaw_spread"] == pytest.approx(np.mean(list(spreads.values())))
        slow = {"adherence": [], "yaw_spread": []}
        for column in drawn.T:
            copies = np.concatenate([np.repeat(person, int(column[person])) for person in people_of_group]).astype(int)
            slow["adherence"].append(np.nanmean(np.concatenate([cosines[labels == person] for person in copies])))
            slow["yaw_spread"].append(np.mean([spreads[person] for person in copies]))
        for key, values in slow.items():
            ends = [found[name][f"{key}_{end}"] for end in ("low", "high")]
            assert ends == pytest.approx(np.quantile(values, [0.025, 0.975]))


def test_the_worst_group_is_the_least_adherent_and_diverse_and_leaks_most():
    images, labels, groups = two_groups((0.3, 0.05))
    random = np.random.default_rng(0)
    told = {"adherence": random.normal(0.5, 0.05, len(labels)) + 0.2 * (groups == "a"),
            "leakage_rate": (random.random(len(labels)) < np.where(groups == "a", 0.1, 0.5)) * 1.0}
    gaps = fairness(images, labels, groups, images=told, bootstrap=200)["gaps"]
    assert {key: gaps[key]["worst"] for key in ("adherence", "leakage_rate", "genuine_std")} == {
        "adherence": "b", "leakage_rate": "b", "genuine_std": "b"}
    for key in told:
        assert 0 < gaps[key]["gap_low"] < gaps[key]["gap"] < gaps[key]["gap_high"]


def test_all_groups_are_searched_with_galleries_of_one_size():
    images, labels, groups = two_groups((0.5, 0.5))
    keep = (groups == "a") | (labels < 64)
    images, labels, groups = images[keep], labels[keep], groups[keep]
    found = fairness(images, labels, groups, bootstrap=10)["groups"]
    assert [found[name]["n_enrolled"] for name in "ab"] == [12, 12]
    for name, share in (("a", 12 / 40), ("b", 0.5)):
        alone = identification(images[groups == name], labels[groups == name], enrolled_share=share, bootstrap=0)
        assert alone["n_enrolled"] == 12
        for key in ("rank1", "tpir_at_fpir_0.1"):
            assert found[name][key] == alone[key]
    few = fairness(images, labels, groups, images=None, bootstrap=10)["gaps"]
    assert {"rank1", "tpir_at_fpir_0.1"} <= set(few)


def test_a_group_whose_people_have_one_image_each_enrols_nobody():
    images, labels, groups = two_groups(n=20)
    first = np.r_[True, np.diff(labels) > 0]
    keep = (groups == "a") | first | (labels == 20)
    found = fairness(images[keep], labels[keep], groups[keep], bootstrap=10)
    assert found["groups"]["a"]["n_enrolled"] == 0
    assert found["groups"]["a"]["rank1"] is None
    assert "rank1" not in found["gaps"]
    assert "no gap, for fewer than two groups" in table(found)


def test_numbers_that_are_not_one_an_image_are_refused():
    images, labels, groups = two_groups(n=20)
    with pytest.raises(InputError, match="attributes yaw: one number for each of 160 images"):
        fairness(images, labels, groups, attributes={"yaw": np.zeros(7)})


def test_accuracy_and_tar_of_pairs_are_told_by_group():
    scores, same, units, groups = paired((0.1, 0.3))
    right = (scores >= 0.35) == same
    found = pair_fairness(scores, same, units, groups, right=right, bootstrap=100)
    for name in "ab":
        own = groups == name
        assert found["groups"][name]["accuracy"] == right[own].mean()
        alone = pair_rates(scores[own], same[own], fold_units(own.sum(), 10), fars=(0.01,), bootstrap=0)
        assert found["groups"][name]["tar_at_far_1e-2"] == alone["tar_at_far_1e-2"]
        assert found["groups"][name]["tar_at_far_1e-4"] is None, "240 impostor pairs say nothing of one in ten thousand"
    gap = found["gaps"]["accuracy"]
    assert (gap["worst"], gap["best"]) == ("b", "a")
    assert 0 < gap["gap_low"] < gap["gap"] < gap["gap_high"]
    assert "tar_at_far_1e-4" not in found["gaps"]


def test_images_one_by_one_give_the_figures_of_the_whole_set():
    vectors, labels = people(20, 4, 16, 0.5, seed=3)
    centres, _ = people(20, 1, 16, 0.0, seed=3)
    names = tuple(f"p{k}" for k in range(20))
    judged = Embeddings(vectors, labels, names)
    bank = ContextBank(centres, names)
    training = Embeddings(*people(60, 5, 16, 0.5, seed=9))
    told = per_image(judged, contexts=bank, conditioned=judged, training=training)
    whole = measure(judged, contexts=bank, conditioned=judged, training=training, bootstrap=0, force=True)
    assert {key: values.mean() for key, values in told.items()} == pytest.approx(
        {key: whole[key] for key in ("adherence", "adherence_rank1", "leakage_rate")})
    with pytest.raises(InputError, match="belong together"):
        per_image(judged, contexts=bank)
    with pytest.raises(MismatchError, match="did not embed the same pictures"):
        per_image(judged, contexts=bank, conditioned=Embeddings(vectors[:-1], labels[:-1], names))

"""Protocols of procedural people: conditions as declared, folds apart, pairs balanced, the same for the same seed."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from negface.datasets import load_rgb, open_pairs
from negface.foundation.errors import FormatError, InputError, MismatchError, OutputError
from negface.population import protocols, sample_people
from negface.population.likeness import SHOWN_BY, WEIGHTS, partners, trait_distances
from negface.population.pairing import cast, pair_up, shoot
from negface.population.protocol_specs import PROTOCOLS, protocol
from negface.population.traits import TRAIT_NAMES, People

NAMES = list(PROTOCOLS)
ASKED = {"size": 32, "people": 4, "pairs": 8, "workers": 1}


def tables(pairs) -> np.ndarray:
    """``[n, 4]``: person and picture of the first, person and picture of the second."""
    return np.concatenate([pairs.first, pairs.second], 1)


@pytest.mark.parametrize("name", NAMES)
def test_every_protocol_has_6000_pairs_in_ten_folds_that_share_nobody(name):
    spec = protocol(name)
    pairs = pair_up(spec, seed=0)
    folds = tables(pairs).reshape(10, 600, 4)
    people = [set(fold[:, [0, 2]].ravel().tolist()) for fold in folds]
    assert sum(map(len, people)) == len(set().union(*people)) == spec.people
    np.testing.assert_array_equal(pairs.same.reshape(10, 600), np.tile([True] * 300 + [False] * 300, (10, 1)))
    np.testing.assert_array_equal(pairs.first[:, 0] == pairs.second[:, 0], pairs.same)


@pytest.mark.parametrize("name", NAMES)
def test_no_pair_comes_twice_and_everybody_is_in_as_many(name):
    pairs = pair_up(protocol(name), seed=3)
    unordered = {frozenset([(a, i), (b, j)]) for a, i, b, j in tables(pairs).tolist()}
    assert len(unordered) == 6000
    assert all(len(pair) == 2 for pair in unordered)
    for kind in (pairs.same, ~pairs.same):
        counts = np.bincount(tables(pairs)[kind][:, [0, 2]].ravel())
        assert counts.min() == counts.max() == 12


@pytest.mark.parametrize("name", NAMES)
def test_the_two_pictures_of_a_pair_are_of_the_two_conditions(name):
    spec, pairs = protocol(name), pair_up(protocol(name), seed=0)
    if spec.second is None:
        return
    pictures = tables(pairs)[:, [1, 3]]
    assert (pictures[:, 0] < spec.first.pictures).all()
    assert (pictures[:, 1] >= spec.first.pictures).all()


def test_pairs_and_pictures_follow_from_the_seed_alone():
    spec = protocol("cross-pose")
    np.testing.assert_array_equal(tables(pair_up(spec, seed=1)), tables(pair_up(spec, seed=1)))
    assert (tables(pair_up(spec, seed=1)) != tables(pair_up(spec, seed=2))).any()
    people = sample_people(2, seed=1)
    _, both = shoot(people, protocol=spec, seed=1)
    _, one = shoot(people.take([1]), protocol=spec, seed=1)
    np.testing.assert_array_equal(both.values[spec.pictures:], one.values)
    assert both.keys[spec.pictures:] == one.keys
    _, other = shoot(people, protocol=spec, seed=2)
    assert (both.values != other.values).mean() > 0.5


def sides(name: str) -> tuple:
    """Shots of the two sides (or twice those of the one) of 12 people."""
    spec = protocol(name)
    _, shots = shoot(sample_people(12, seed=5), protocol=spec, seed=0)
    number = np.tile(np.arange(spec.pictures), 12)
    first = number < spec.first.pictures
    return shots.take(np.flatnonzero(first)), shots.take(np.flatnonzero(~first if spec.second else first))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_in_question_stays_frontal_free_and_of_one_age(name):
    first, second = sides(name)
    for shots in (first, second):
        if name != "cross-pose" or shots is first:
            assert np.abs(shots.nuisance("yaw")).max() < 30
        if name != "occluded" or shots is first:
            assert all((shots.nuisance(worn) == 0).all() for worn in ("glasses", "mask", "hat", "hand"))
    gaps = np.abs(first.nuisance("age").reshape(12, -1)[:, :1] - second.nuisance("age").reshape(12, -1))
    assert (gaps.min() >= 30 and gaps.max() <= 45) if name == "cross-age" else gaps.max() <= 4


def test_each_protocol_varies_what_it_is_named_after():
    _, turned = sides("cross-pose")
    assert np.abs(turned.nuisance("yaw")).min() >= 45
    assert 0.3 < (turned.nuisance("yaw") > 0).mean() < 0.7
    right, left = sides("cross-light")
    assert right.nuisance("light_azimuth").min() >= 50
    assert left.nuisance("light_azimuth").max() <= -50
    _, covered = sides("occluded")
    worn = np.stack([covered.nuisance(name) > 0.4 for name in ("mask", "hat", "hand")])
    np.testing.assert_array_equal(worn.sum(0), 1)
    np.testing.assert_array_equal(worn.reshape(3, 12, 3).sum(2), 1)  # one of each a person
    np.testing.assert_array_equal(covered.nuisance("glasses") >= 1, ~worn[0])


def test_partners_are_the_nearest_not_yet_taken():
    people, pool = sample_people(6, seed=1), sample_people(8, seed=2)

    def seen(who, name: str) -> float:
        return who.trait(name)[0] * (1 - who.trait(SHOWN_BY[name])[0] if name in SHOWN_BY else 1)

    distances = np.array([[np.sqrt(sum((weight * (seen(a, name) - seen(b, name))) ** 2 for name, weight in
                                       WEIGHTS.items())) for b in map(pool.take, ([j] for j in range(8)))]
                          for a in map(people.take, ([i] for i in range(6)))])
    np.testing.assert_allclose(trait_distances(people, pool), distances, rtol=1e-5)
    taken: list[int] = []
    for row in distances:
        taken.append(min((j for j in range(8) if j not in taken), key=row.__getitem__))
    assert partners(people, pool).tolist() == taken


def test_look_alikes_stand_side_by_side_and_are_far_nearer_than_chance():
    spec = replace(protocol("look-alike"), people=40, pairs=240, pool=300).check()
    people = cast(spec, seed=0, start=0)
    assert len(set(people.ids)) == 40
    distances = trait_distances(people, people)
    beside = distances[np.arange(0, 40, 2), np.arange(1, 40, 2)]
    assert beside.mean() < 0.75 * distances[np.triu_indices(40, 1)].mean()
    pairs = pair_up(spec, seed=0)
    np.testing.assert_array_equal(pairs.first[~pairs.same, 0] // 2, pairs.second[~pairs.same, 0] // 2)


def test_a_twin_is_found():
    pool = sample_people(50, seed=3)
    twin = People(pool.values[17:18] * 0.98, ("twin",))
    assert partners(twin, pool).tolist() == [17]


@pytest.mark.parametrize(("name", "counts", "complaint"), [
    ("frontal", {"people": 0}, "0 people"),
    ("frontal", {"pairs": 0}, "0 pairs"),
    ("frontal", {"pairs": 6010}, "a multiple of 20"),
    ("frontal", {"people": 505}, "505 people cannot be cut evenly into 10 folds"),
    ("frontal", {"people": 490}, "300 genuine pairs are wanted in each fold, and its 49 people .* give 294"),
    ("cross-pose", {"people": 10, "pairs": 20}, "1 impostor pairs are wanted in each fold, and its 1 people"),
    ("look-alike", {"people": 490}, "a multiple of 20"),
    ("look-alike", {"people": 9000, "pairs": 20}, "pool of 4000"),
    ("fronta", {}, "did you mean 'frontal'")])
def test_an_impossible_protocol_says_what_there_is_too_little_of(name, counts, complaint):
    with pytest.raises(InputError, match=complaint):
        protocol(name, **counts)


@contextmanager
def two_folds():
    """Protocols of two folds instead of ten, so that a few people make one."""
    with pytest.MonkeyPatch.context() as patch:
        for name, spec in PROTOCOLS.items():
            patch.setitem(PROTOCOLS, name, replace(spec, folds=2))
        yield


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("protocols") / "occluded"
    with two_folds():
        return out, protocols.write("occluded", out, as_bin=True, **ASKED)


def test_a_written_protocol_opens_as_pairs_and_as_bin_with_the_same_pictures(written):
    out, card = written
    listed, packed = open_pairs(out / "pairs.csv"), open_pairs(out / "occluded.bin")
    np.testing.assert_array_equal(listed.same, packed.same)
    assert listed.names == packed.names
    assert list(listed.images()) == list(packed.images())
    assert card["title"] == "occluded/1 (altered)"
    text = (out / "README.md").read_text()
    assert all(part in text for part in ("# occluded/1 (altered)", "4 genuine and 4 impostor", "900000 to 900003"))


def test_a_loaded_protocol_has_pictures_pairs_and_groups_from_truth(written):
    out, card = written
    found = protocols.load(out)
    images = np.stack(list(found.images()))
    assert images.shape == (4 * 6, 32, 32, 3)
    assert dict(found.card) == card
    for k in (0, 7, 15):
        np.testing.assert_array_equal(images[found.index[k]], load_rgb(found.pairs.read(k)))
    identity = np.array([row["identity"] for row in found.truth])[found.index].reshape(-1, 2)
    np.testing.assert_array_equal(identity[:, 0] == identity[:, 1], found.same)
    assert (found.groups["sex"][found.same] != protocols.MIXED).all()
    for pair in range(len(found)):
        a, b = (found.truth[place]["traits"]["femininity"] > 0.5 for place in found.index[2 * pair:2 * pair + 2])
        assert found.groups["sex"][pair] == ("mixed" if a != b else "feminine" if a else "masculine")
    assert set(found.groups) == {"sex", "skin", "age"}


def test_people_of_the_training_set_are_refused(written):
    found = protocols.load(written[0])
    found.check_unseen({"seed": 0, "start": 0, "people": 900_000})
    found.check_unseen({"seed": 1, "start": 0, "people": 2_000_000})
    with pytest.raises(MismatchError, match="people 900000 to 900003"):
        found.check_unseen({"seed": 0, "start": 800_000, "people": 100_005})


def test_a_list_that_names_a_picture_without_truth_is_refused(written, tmp_path):
    for name in ("protocol.json", "labels.jsonl"):
        (tmp_path / name).write_bytes((written[0] / name).read_bytes())
    (tmp_path / "pairs.csv").write_text("image_a,image_b,same\ns0-p900000/0000.jpg,elsewhere/0000.jpg,0\n")
    with pytest.raises(FormatError, match="names elsewhere/0000.jpg"):
        protocols.load(tmp_path)
    (tmp_path / "protocol.json").write_text("{}")
    with pytest.raises(FormatError, match="no population protocol|does not describe"):
        protocols.load(tmp_path)


def test_the_commands_list_and_write_protocols(tmp_path, negface):
    code, out, _ = negface("population", "protocols", "--json", "-")
    assert code == 0
    assert [row["name"] for row in json.loads(out)["protocols"]] == NAMES
    code, _, err = negface("population", "protocol", "fronta", "--out", tmp_path / "out")
    assert code == 2
    assert "did you mean 'frontal'" in err
    code, _, err = negface("population", "protocol", "all", "--out", tmp_path / "out", "--people", 10)
    assert code == 2
    assert list(tmp_path.iterdir()) == []


def test_all_keeps_what_is_written_and_refuses_what_is_something_else(tmp_path, monkeypatch):
    monkeypatch.setattr(protocols, "PROTOCOLS", {"frontal": PROTOCOLS["frontal"]})
    with two_folds():
        cards = protocols.write_all(tmp_path, **ASKED)
        monkeypatch.setattr(protocols, "write_people", None)  # nothing is rendered again
        assert protocols.write_all(tmp_path, **ASKED) == cards
        with pytest.raises(OutputError, match="frontal: exists already"):
            protocols.write_all(tmp_path, **ASKED, seed=1)


def test_weights_name_traits_and_bones_outweigh_moles():
    assert set(WEIGHTS) <= set(TRAIT_NAMES)
    assert set(SHOWN_BY) <= set(WEIGHTS)
    assert min(WEIGHTS[name] for name in ("eye_height", "head_width", "nose_length")) > 10 * WEIGHTS["mole_1_size"]

"""Rendered people: the truth agrees with the picture, the same numbers give the same picture, mirrors commute."""

from __future__ import annotations

import numpy as np
import pytest

from negface.datasets.templates import template
from negface.foundation.errors import InputError, UnknownNameError
from negface.population import (
    CLASSES,
    NUISANCE_NAMES,
    NUISANCES,
    TRAIT_NAMES,
    TRAITS,
    People,
    mirror,
    mirror_parameters,
    neutral_shots,
    render,
    sample_people,
    sample_shots,
)

LABEL = {name: index for index, name in enumerate(CLASSES)}
N_YAWS = 5


@pytest.fixture(scope="module")
def turned():
    """Three people at five yaws, neutral otherwise, 112 pixels."""
    people = sample_people(3, seed=11).take(np.repeat(np.arange(3), N_YAWS))
    yaw = np.tile(np.linspace(-50, 50, N_YAWS), 3)
    return yaw, render(people, neutral_shots([str(i) for i in range(3 * N_YAWS)], yaw=yaw))


def one_person(**traits) -> People:
    values = sample_people(1, seed=11).values.copy()
    for name, value in traits.items():
        values[:, TRAIT_NAMES.index(name)] = value
    return People(values, ("p",))


def centre(mask: np.ndarray) -> np.ndarray:
    y, x = np.nonzero(mask)
    return np.array([x.mean(), y.mean()])


def polygon_mask(points: np.ndarray, size: int) -> np.ndarray:
    """Pixels whose centre lies inside a polygon (even-odd rule)."""
    y, x = np.mgrid[0:size, 0:size]
    inside = np.zeros((size, size), bool)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0)):
        crosses = (y0 > y) != (y1 > y)
        with np.errstate(divide="ignore", invalid="ignore"):
            inside ^= crosses & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return inside


def test_the_same_numbers_give_the_same_bytes_alone_or_in_a_batch():
    people, shots = sample_shots(sample_people(3, seed=4), 1, seed=4, spreads={"noise": ("uniform", 3, 8)})
    together, again = render(people, shots, 64), render(people, shots, 64)
    alone = render(people.take([1]), shots.take([1]), 64)
    np.testing.assert_array_equal(together.images, again.images)
    np.testing.assert_array_equal(together.images[1], alone.images[0])
    np.testing.assert_array_equal(together.parsing[1], alone.parsing[0])
    np.testing.assert_array_equal(together.points68[1], alone.points68[0])


def test_different_people_look_different():
    people = sample_people(8, seed=2)
    images = render(people, neutral_shots(["same"] * 8), 64).images.astype(np.float64)
    gaps = np.abs(images[:, None] - images[None]).mean(axis=(2, 3, 4))[np.triu_indices(8, 1)]
    assert gaps.min() > 5


@pytest.mark.slow
def test_every_trait_shows():
    """From one end of each trait to the other the picture changes (the person has hair, a beard and moles)."""
    base = {"femininity": 0.2, "beard": 0.7, "moustache": 0.7, "hair_length": 0.9, "fringe": -1, "freckles": 0.5,
            "skin_tone": 0.2, "hair_melanin": 0.2, "iris_melanin": 0.2, "hair_volume": 1, "hair_wave": 0.4,
            "mole_1_size": 0.6, "mole_2_size": 0.6, "mole_3_size": 0.6, "hairline_recession": 0.0, "hairline": 0.0}
    rows = []
    for index, trait in enumerate(TRAITS):
        for share in (0.1, 0.9):
            row = one_person(**base).values[0].copy()
            row[index] = trait.low + share * (trait.high - trait.low)
            rows.append(row)
    people = People(np.array(rows), tuple(map(str, range(len(rows)))))
    images = render(people, neutral_shots(["same"] * len(rows), yaw=25, age=35), 48, frame="portrait").images
    change = np.abs(images[0::2].astype(int) - images[1::2]).reshape(len(TRAITS), -1).max(1)
    assert [trait.name for trait, most in zip(TRAITS, change) if most < 3] == []


def test_every_nuisance_shows():
    rows = []
    for index, nuisance in enumerate(NUISANCES):
        for value in (nuisance.low, nuisance.high):
            row = neutral_shots(["same"], yaw=10, jpeg=100).values[0].copy()
            row[index] = value
            rows.append(row)
    shots = type(neutral_shots(["a"]))(np.array(rows), ("same",) * len(rows))
    people = one_person(femininity=0.2, beard=0.9).take([0] * len(rows))
    images = render(people, shots, 48, frame="portrait").images
    change = np.abs(images[0::2].astype(int) - images[1::2]).reshape(len(NUISANCES), -1).max(1)
    assert [item.name for item, most in zip(NUISANCES, change) if most < 3] == []


def test_aligned_faces_lie_on_the_template(turned):
    yaw, rendered = turned
    frontal = np.abs(yaw) < 1
    off = np.abs(rendered.points5[frontal] - template("arcface")).max()
    assert off < 6
    np.testing.assert_allclose(rendered.points5.mean(1), np.tile(template("arcface").mean(0), (len(yaw), 1)), atol=0.01)


def test_alignment_takes_the_roll_out_and_the_truth_says_so():
    people = one_person().take([0, 0])
    rendered = render(people, neutral_shots(["a", "a"], roll=np.array([0, 25])), 64)
    assert abs(rendered.pose[1, 2]) < 2
    assert np.abs(rendered.points68[0] - rendered.points68[1]).max() < 0.6
    kept = render(people, neutral_shots(["a", "a"], roll=np.array([0, 25])), 64, frame="portrait")
    assert kept.pose[1, 2] == pytest.approx(25)
    eyes = kept.points5[1, 1] - kept.points5[1, 0]
    assert np.degrees(np.arctan2(eyes[1], eyes[0])) == pytest.approx(25, abs=3)


def test_positive_yaw_turns_the_nose_to_the_left_and_positive_pitch_up():
    people = one_person().take([0, 0, 0])
    points = render(people, neutral_shots(["a"] * 3, yaw=np.array([0, 30, 0]), pitch=np.array([0, 0, 20])), 64,
                    frame="portrait").points5
    nose = points[:, 2] - points[:, :2].mean(1)
    assert nose[1, 0] < nose[0, 0] - 3
    assert nose[2, 1] < nose[0, 1] - 1


def test_eye_landmarks_surround_the_rendered_eyes(turned):
    yaw, rendered = turned
    for index in np.flatnonzero(np.abs(yaw) < 30):
        for first in (36, 42):
            outline = rendered.points68[index, first:first + 6]
            box = np.zeros((112, 112), bool)
            low, high = np.floor(outline.min(0)).astype(int) - 2, np.ceil(outline.max(0)).astype(int) + 3
            box[low[1]:high[1], low[0]:high[0]] = True
            seen = (rendered.parsing[index] == LABEL["eyes"]) & box
            assert seen.sum() >= 12
            assert np.abs(centre(seen) - centre(polygon_mask(outline, 112))).max() < 1.2


def test_lip_landmarks_surround_the_rendered_lips(turned):
    yaw, rendered = turned
    for index in np.flatnonzero(np.abs(yaw) < 30):
        expected = polygon_mask(rendered.points68[index, 48:60], 112)
        seen = np.isin(rendered.parsing[index], [LABEL["lips"], LABEL["mouth"]])
        overlap = (expected & seen).sum() / (expected | seen).sum()
        assert overlap > 0.7


def test_brow_landmarks_lie_along_the_rendered_brows():
    people = one_person(brow_density=2, brow_thickness=1, fringe=-2, hairline=1)
    rendered = render(people, neutral_shots(["a"]), 112)
    for first, half in ((17, slice(0, 56)), (22, slice(56, 112))):
        seen = rendered.parsing[0] == LABEL["brows"]
        side = np.zeros_like(seen)
        side[:, half] = seen[:, half]
        assert np.abs(centre(side) - rendered.points68[0, first:first + 5].mean(0)).max() < 2.0


def test_nose_landmarks_lie_on_the_rendered_nose(turned):
    yaw, rendered = turned
    for index in np.flatnonzero(np.abs(yaw) < 30):
        nose = rendered.parsing[index] == LABEL["nose"]
        x, y = np.round(rendered.points68[index, 29:36]).astype(int).T
        grown = nose | np.roll(nose, 1, 0) | np.roll(nose, -1, 0) | np.roll(nose, 1, 1) | np.roll(nose, -1, 1)
        assert grown[y, x].all()
        assert abs(centre(nose)[0] - rendered.points68[index, 27:36, 0].mean()) < 3


def test_below_the_chin_landmark_the_face_ends():
    rendered = render(sample_people(3, seed=11), neutral_shots(["a", "b", "c"]), 112, frame="portrait")
    for (x, y), parsing in zip(np.round(rendered.points68[:, 8]).astype(int), rendered.parsing):
        assert parsing[y - 3, x] == LABEL["skin"]
        assert parsing[y + 3, x] != LABEL["skin"]


def test_an_open_mouth_opens_between_its_landmarks():
    rendered = render(one_person().take([0, 0]), neutral_shots(["a", "a"], mouth_open=np.array([0, 0.8])), 112)
    gaps = rendered.points68[:, 66, 1] - rendered.points68[:, 62, 1]
    inside = (rendered.parsing == LABEL["mouth"]).sum(axis=(1, 2))
    assert gaps[0] < 1.5
    assert gaps[1] > 5
    assert inside[0] == 0
    assert inside[1] > 40


def test_parsing_gives_every_pixel_one_class_and_its_background_is_the_background():
    """Another key changes background and clothes only; wherever the parsing says anything else, no pixel changes."""
    people = one_person().take([0, 0])
    rendered = render(people, neutral_shots(["a", "b"]), 112, frame="portrait")
    assert rendered.parsing.shape == rendered.images.shape[:3]
    assert rendered.parsing.max() < len(CLASSES)
    np.testing.assert_array_equal(rendered.parsing[0], rendered.parsing[1])
    changed = (rendered.images[0] != rendered.images[1]).any(-1)
    free = np.isin(rendered.parsing[0], [LABEL["background"], LABEL["clothes"]])
    near = free.copy()  # a pixel on the outline holds samples of both sides
    near[1:] |= free[:-1]
    near[:-1] |= free[1:]
    near[:, 1:] |= free[:, :-1]
    near[:, :-1] |= free[:, 1:]
    assert not (changed & ~near).any()
    assert changed[free].mean() > 0.98


def test_what_is_worn_is_seen_and_labelled():
    base = one_person(hair_length=0.3, fringe=-1).take([0] * 4)
    shots = neutral_shots(["a"] * 4, glasses=np.array([0, 2, 0, 0]), mask=np.array([0, 0, 1, 0]),
                          hat=np.array([0, 0, 0, 2]))
    parsing = render(base, shots, 112).parsing.reshape(4, -1)
    frames, covered = (parsing == LABEL["glasses"]).sum(1), (parsing == LABEL["occluder"]).sum(1)
    assert frames[1] > 100
    assert list(frames[[0, 2, 3]]) == [0, 0, 0]
    assert covered[2] > 1000
    assert covered[3] > 300
    assert list(covered[[0, 1]]) == [0, 0]


def test_what_is_hidden_is_not_called_visible(turned):
    yaw, rendered = turned
    frontal, left = np.flatnonzero(np.abs(yaw) < 1), np.flatnonzero(yaw > 49)
    assert rendered.visible68[frontal][:, 27:60].all()
    # turned to the left of the picture: the jaw on that side is behind the face
    assert not rendered.visible68[left][:, 0:4].any()
    masked = render(one_person(), neutral_shots(["a"], mask=1), 112)
    assert not masked.visible68[0, 48:68].any()
    assert masked.visible68[0, 36:48].all()


@pytest.mark.parametrize(("yaw", "pitch"), [(-75, 0), (40, 0), (75, 20), (0, -30)])
def test_the_silhouette_has_no_holes_when_turned(yaw, pitch):
    short = one_person(hair_length=0.6, femininity=0, hair_volume=2, hair_wave=0)
    rendered = render(short, neutral_shots(["a"], yaw=yaw, pitch=pitch), 96, frame="portrait")
    forehead = round(float(rendered.boxes[0, 1])) + 2  # below it an ear may stand off the hair
    assert (rendered.parsing[0, :forehead] != LABEL["background"]).sum() > 200
    for line in rendered.parsing[0, :forehead]:
        there = np.flatnonzero(line != LABEL["background"])
        assert len(there) == 0 or np.ptp(there) == len(there) - 1


def test_mirroring_twice_gives_everything_back(turned):
    _, rendered = turned
    twice = mirror(mirror(rendered))
    np.testing.assert_array_equal(twice.images, rendered.images)
    np.testing.assert_array_equal(twice.parsing, rendered.parsing)
    np.testing.assert_array_equal(twice.visible68, rendered.visible68)
    for name in ("points5", "points68", "boxes", "pose"):
        np.testing.assert_allclose(getattr(twice, name), getattr(rendered, name), atol=1e-3)


def test_mirrored_people_photograph_as_the_mirrored_picture():
    """Rendering commutes with the mirror, labels included (skin texture and background, which stay, set aside)."""
    people, shots = sample_shots(sample_people(4, seed=21), 1, seed=1)
    plain = people.values.copy()
    plain[:, [TRAIT_NAMES.index(name) for name in ("freckles", "hair_wave")]] = 0
    people = People(plain, people.ids)
    numbers = shots.values.copy()
    for name, value in {"noise": 0, "jpeg": 100, "hand": 0, "shift_x": 0}.items():
        numbers[:, NUISANCE_NAMES.index(name)] = value
    shots = type(shots)(numbers, shots.keys)
    flipped = mirror(render(people, shots, 96, frame="portrait"))
    direct = render(*mirror_parameters(people, shots), 96, frame="portrait")
    np.testing.assert_allclose(direct.points68, flipped.points68, atol=0.02)
    np.testing.assert_allclose(direct.points5, flipped.points5, atol=0.02)
    np.testing.assert_allclose(direct.boxes, flipped.boxes, atol=0.02)
    np.testing.assert_allclose(direct.pose, flipped.pose, atol=1e-3)
    assert (direct.visible68 == flipped.visible68).mean() > 0.97
    assert (direct.parsing == flipped.parsing).mean() > 0.985
    person = (direct.parsing != LABEL["background"]) & (direct.parsing == flipped.parsing)
    assert np.abs(direct.images.astype(int) - flipped.images)[person].mean() < 4


def test_age_changes_the_picture_and_not_the_bones():
    rendered = render(one_person().take([0, 0]), neutral_shots(["a", "a"], age=np.array([20, 75])), 96)
    assert np.abs(rendered.images[0].astype(int) - rendered.images[1]).mean() > 1
    assert np.abs(rendered.points68[0] - rendered.points68[1]).mean() < 1.5


@pytest.mark.parametrize("size", [32, 200])
def test_truth_scales_with_the_size(size):
    people, shots = one_person(), neutral_shots(["a"], yaw=20)
    small, large = render(people, shots, size), render(people, shots, 112)
    scaled = (large.points68 + 0.5) * size / 112 - 0.5
    np.testing.assert_allclose(small.points68, scaled, atol=0.02)
    assert small.images.shape == (1, size, size, 3)


def test_impossible_requests_are_refused():
    people, shots = one_person(), neutral_shots(["a", "b"])
    with pytest.raises(InputError, match="1 people and 2 shots"):
        render(people, shots)
    with pytest.raises(InputError, match="size is 8"):
        render(people, shots.take([0]), 8)
    with pytest.raises(UnknownNameError, match="did you mean 'portrait'"):
        render(people, shots.take([0]), frame="portait")

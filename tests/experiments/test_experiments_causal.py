"""The causal experiment on renders: one attribute changes, nothing else, and a planted recogniser is found out."""

from __future__ import annotations

import numpy as np
import pytest

from negface.experiments.causal import causal, changed
from negface.foundation.errors import InputError, UnknownNameError
from negface.foundation.noise import keyed_generator
from negface.population import NUISANCE_NAMES, TRAIT_NAMES, render, sample_people, sample_shots


def few(n=2, images=2):
    return sample_shots(sample_people(n, seed=5, start=7), images, seed=5)


def test_only_the_attribute_changes():
    people, shots = few()
    who, how = changed(people, shots, "skin_tone", 0.9)
    assert (who.trait("skin_tone") == np.float32(0.9)).all()
    at = TRAIT_NAMES.index("skin_tone")
    np.testing.assert_array_equal(np.delete(who.values, at, 1), np.delete(people.values, at, 1))
    light = NUISANCE_NAMES.index("exposure")
    np.testing.assert_array_equal(np.delete(how.values, light, 1), np.delete(shots.values, light, 1))
    assert how.keys == shots.keys
    assert changed(people, shots, "skin_tone", 0.9, total=True)[1] is shots
    who, how = changed(people, shots, "glasses", 2)
    at = NUISANCE_NAMES.index("glasses")
    assert (how.values[:, at] == 2).all()
    np.testing.assert_array_equal(np.delete(how.values, at, 1), np.delete(shots.values, at, 1))
    assert who is people


def test_background_and_pose_stay_when_skin_changes_unless_the_meter_may_follow():
    people, shots = few()
    shots = changed(people, changed(people, shots, "blur", 0)[1], "jpeg", 100)[1]
    light, dark = (render(*changed(people, shots, "skin_tone", level), 48) for level in (0.1, 0.9))
    metered = render(*changed(people, shots, "skin_tone", 0.9, total=True), 48)
    np.testing.assert_array_equal(light.points68, dark.points68)
    np.testing.assert_array_equal(light.parsing, dark.parsing)
    skin = light.parsing == 1
    inside = (light.parsing == 0) & (np.abs(light.images.astype(int) - 128).max(axis=-1) < 120)
    for other, moves in ((dark, False), (metered, True)):
        difference = np.abs(light.images.astype(int) - other.images).mean(axis=-1)
        assert difference[skin].mean() > 20
        assert (np.median(difference[inside]) > 5) == moves


def test_the_total_effect_of_femininity_moves_what_follows_it_by_its_shift():
    people, shots = few(3)
    direct, total = (changed(people, shots, "femininity", 1, total=flag)[0] for flag in (False, True))
    assert np.delete(direct.values, 0, 1).tolist() == np.delete(people.values, 0, 1).tolist()
    jaw = people.trait("jaw_width") + 2 * -0.5 * (1 - people.trait("femininity"))
    np.testing.assert_allclose(total.trait("jaw_width"), np.clip(jaw, -2.5, 2.5), atol=1e-6)
    np.testing.assert_array_equal(total.trait("head_height"), people.trait("head_height"))


class Planted:
    """Knows everybody (pictures come in a known order) and sees ``noise`` more badly in pictures darker than usual."""

    def __init__(self, people, images, noise, dim=24):
        self.order, self.noise, self.dim, self.seen = np.repeat(np.arange(people), images), noise, dim, 0

    def embed(self, images, *, resize=False):
        rows = [self.order[(self.seen + at) % len(self.order)] for at in range(len(images))]
        self.seen += len(images)
        out = []
        for row, image in zip(rows, images):
            dark = image[12:24, 8:24].mean() < 75
            random = keyed_generator("planted", image.tobytes())
            noise = random.normal(size=self.dim) * (self.noise if dark else 0.4)
            out.append(keyed_generator("centre", int(row)).normal(size=self.dim) + noise)
        return np.array(out, np.float32)


@pytest.mark.parametrize(("noise", "biased"), [(1.5, True), (0.4, False)])
def test_a_recogniser_that_sees_dark_faces_worse_is_found_out_and_a_fair_one_is_not(noise, biased):
    found = causal(Planted(16, 2, noise), "skin_tone", (0.05, 0.95), people=16, images=2, size=32, fmr=0.05,
                   bootstrap=300)
    assert found["effects"][0]["genuine_mean"]["bias"] is biased
    assert found["bias_found"] is biased


def test_what_cannot_be_asked_is_refused():
    people, shots = few(1)
    with pytest.raises(UnknownNameError, match="did you mean 'skin_tone'"):
        changed(people, shots, "skin_tome", 1)
    with pytest.raises(InputError, match="age cannot be 5"):
        changed(people, shots, "age", 5)
    with pytest.raises(InputError, match="two or more"):
        causal(None, "age", (20,))
    with pytest.raises(InputError, match="1 people"):
        causal(None, "age", (20, 70), people=1)

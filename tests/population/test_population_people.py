"""People and shots: stated distributions, independence of how many are asked for, errors that name the fault."""

from __future__ import annotations

import numpy as np
import pytest

from negface.foundation.errors import InputError, UnknownNameError
from negface.population import (
    NUISANCES,
    TRAIT_NAMES,
    TRAITS,
    People,
    Shots,
    attributes,
    caption,
    monk_tone,
    neutral_shots,
    sample_people,
    sample_shots,
)
from negface.population.shots import check_spreads


def test_a_person_has_at_least_48_continuous_degrees_of_freedom():
    people = sample_people(200, seed=3)
    varied = [name for name in TRAIT_NAMES if len(np.unique(people.trait(name))) > 100]
    assert len(set(TRAIT_NAMES)) == len(TRAIT_NAMES)
    assert len(varied) == len(TRAITS) >= 48


def test_a_person_does_not_depend_on_how_many_are_drawn():
    many, one = sample_people(5, seed=7), sample_people(1, seed=7, start=3)
    np.testing.assert_array_equal(many.values[3], one.values[0])
    assert many.ids[3] == one.ids[0]
    assert not np.array_equal(many.values[0], sample_people(1, seed=8).values[0])


def test_skin_tones_are_even_over_the_monk_scale():
    counts = np.bincount(monk_tone(sample_people(1000, seed=0)), minlength=11)[1:]
    # 100 are expected of each tone with deviation 9.5; four deviations are allowed
    assert counts.min() > 62
    assert counts.max() < 138


def test_sex_shifts_the_traits_that_say_so_and_no_others():
    people = sample_people(1500, seed=1)
    feminine = people.trait("femininity") > 0.5
    for trait in TRAITS[1:]:
        values = people.trait(trait.name)
        gap = values[feminine].mean() - values[~feminine].mean()
        if abs(trait.femininity_shift) >= 0.5:
            assert np.sign(gap) == np.sign(trait.femininity_shift), trait.name
        elif trait.femininity_shift == 0:
            assert abs(gap) < 0.22, trait.name


def test_a_shot_does_not_depend_on_how_many_are_drawn():
    people = sample_people(2, seed=0)
    _, many = sample_shots(people, 4, seed=2)
    _, one = sample_shots(people.take([1]), 1, seed=2, start=2)
    np.testing.assert_array_equal(many.values[6], one.values[0])
    assert many.keys[6] == one.keys[0]


def test_zero_people_and_zero_pictures_are_refused():
    with pytest.raises(InputError, match="0 people"):
        sample_people(0)
    with pytest.raises(InputError, match="0 pictures"):
        sample_shots(sample_people(1), 0)
    with pytest.raises(InputError, match="nobody"):
        People(np.zeros((0, len(TRAITS)), np.float32), ())


def test_a_value_out_of_range_is_named_with_its_range():
    values = sample_people(2).values.copy()
    values[1, TRAIT_NAMES.index("jaw_width")] = 7
    with pytest.raises(InputError, match=r"row 1: jaw_width is 7; it must lie in -2\.5\.\.2\.5"):
        People(values, ("a", "b"))
    with pytest.raises(InputError, match=r"yaw is 120; it must lie in -75\.\.75"):
        neutral_shots(["a"], yaw=120)
    values[1, TRAIT_NAMES.index("jaw_width")] = np.nan
    with pytest.raises(InputError, match="jaw_width is nan"):
        People(values, ("a", "b"))


@pytest.mark.parametrize("item", NUISANCES, ids=lambda item: item.name)
def test_every_nuisance_is_refused_beyond_its_range_and_taken_at_its_ends(item):
    step = 0.01 * (item.high - item.low)
    for value in (item.low, item.high):
        assert neutral_shots(["a"], **{item.name: value}).nuisance(item.name)[0] == np.float32(value)
    for value in (item.low - step, item.high + step):
        with pytest.raises(InputError, match=f"{item.name} is"):
            neutral_shots(["a"], **{item.name: value})
        with pytest.raises(InputError, match=f"spread of {item.name}: (low|high) is"):
            check_spreads({item.name: ("uniform", *sorted((value, item.neutral)))})


def test_the_distributions_of_the_nuisances_are_themselves_in_range():
    spreads = {item.name: item.spread for item in NUISANCES}
    assert check_spreads(spreads) == {name: (kind, *map(float, at)) for name, (kind, *at) in spreads.items()}
    with pytest.raises(InputError, match="probability is 1.5"):
        check_spreads({"mask": ("some", 1.5, 1, 1)})
    with pytest.raises(InputError, match="mean is nan"):
        check_spreads({"yaw": ("normal", np.nan, 1)})


def test_a_table_of_another_width_is_refused():
    with pytest.raises(InputError, match="expected numbers"):
        Shots(np.zeros((1, 3), np.float32), ("a",))


def test_an_unknown_nuisance_gets_a_suggestion():
    with pytest.raises(UnknownNameError, match="did you mean 'smile'"):
        neutral_shots(["a"], smil=1)


def test_neutral_values_lie_in_their_ranges():
    assert all(item.low <= item.neutral <= item.high for item in NUISANCES)


def test_attributes_and_caption_say_what_is_worn_and_done():
    people = sample_people(1)
    shots = neutral_shots(["a"], glasses=2, smile=0.9, yaw=40, age=70)
    names = attributes(people, shots, 0)
    assert {"glasses", "smiling", "turned_left", "old"} <= set(names)
    text = caption(people, shots, 0)
    assert all(word in text for word in ("about 70 years", "glasses", "smiling", "turned to the left"))
    assert "glasses" not in caption(people, neutral_shots(["a"]), 0)

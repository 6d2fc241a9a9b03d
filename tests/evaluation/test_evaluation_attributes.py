"""Spread of attributes within people, with the instrument's error, and honest silence on photographs."""

from __future__ import annotations

import numpy as np
import pytest

from negface.evaluation._attributes import attribute_spread, table
from negface.foundation.errors import InputError

LABELS = np.repeat(np.arange(30), 5)


def numbers(seed=0):
    random = np.random.default_rng(seed)
    return {"yaw": random.normal(0, 20, 150), "age": np.repeat(random.uniform(20, 70, 30), 5),
            "smile": random.normal(0, 0.1, 150)}


def test_spread_is_the_mean_standard_deviation_within_people():
    given = numbers()
    found = attribute_spread(given, LABELS, analyser="eye", errors={"yaw": 2.0}, photographs=False, bootstrap=100)
    for name, value in given.items():
        assert found.values[name][0] == pytest.approx(value.reshape(30, 5).std(axis=1).mean())
    value, low, high = found.values["yaw"]
    assert low < value < high
    assert found.values["age"][0] == pytest.approx(0, abs=1e-9), "people differ in age, nobody's own images do"


def test_on_photographs_only_pose_and_quality_are_measured():
    given = numbers() | {"quality": np.random.default_rng(1).random(150)}
    result = attribute_spread(given, LABELS, analyser="eye", errors={}, photographs=True, bootstrap=10).to_dict()
    told = {name for name, row in result["attributes"].items() if row["spread"] is not None}
    assert told == {"yaw", "quality"}
    assert next(line for line in table(result).splitlines() if "smile" in line).endswith("not measured")


def test_the_error_stands_beside_and_a_spread_below_it_is_said():
    result = attribute_spread(numbers(), LABELS, analyser="eye", errors={"yaw": 2.0, "smile": 0.3},
                              units={"yaw": "degrees"}, photographs=False, bootstrap=10).to_dict()
    lines = {line.split()[0]: line for line in table(result).splitlines()[1:]}
    assert "degrees  (error 2)" in lines["yaw"]
    assert "below the error" in lines["smile"]
    assert "error unknown" in lines["age"]


def test_people_with_one_told_image_are_left_out():
    given = numbers()["yaw"]
    given[5:9] = np.nan
    found = attribute_spread({"yaw": given}, LABELS, analyser="eye", errors={}, photographs=True, bootstrap=0)
    assert found.values["yaw"][0] == pytest.approx(np.delete(given.reshape(30, 5), 1, axis=0).std(axis=1).mean())


@pytest.mark.parametrize(("given", "labels", "said"), [
    ({}, LABELS, "told nothing"), ({"yaw": np.zeros(4)}, np.arange(4), "no person has two"),
    ({"yaw": np.zeros(4), "age": np.zeros(3)}, np.zeros(4, int), "4 numbers")])
def test_what_cannot_be_measured_is_refused(given, labels, said):
    with pytest.raises(InputError, match=said):
        attribute_spread(given, labels, analyser="eye", errors={}, photographs=False)

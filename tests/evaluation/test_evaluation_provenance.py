"""A recogniser is not tested on people whom it was trained on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from negface.evaluation.provenance import check_unseen, people_text, trained_people
from negface.foundation.errors import MismatchError
from negface.perception import Declaration

NAMES = st.lists(st.one_of(st.integers(0, 40).map(str), st.integers(0, 40).map(lambda n: f"p{n:04d}"),
                           st.text("ab0", min_size=1, max_size=3)), min_size=1, max_size=30)


def test_runs_of_numbered_names_are_written_short():
    assert people_text(f"s7-p{n:06d}" for n in range(2000)).startswith("2000 identities [s7-p000000..s7-p001999], sha")
    assert "[ann, p08..p10, p12]" in people_text(["p09", "p08", "p10", "ann", "p12"])


@given(NAMES, NAMES)
def test_exactly_the_listed_people_are_found_again(trained, asked):
    assert set(trained_people(people_text(trained), asked)) == set(trained) & set(asked)


def test_width_of_numbers_tells_names_apart():
    assert trained_people("[08..12]", ["8", "10", "010", "12"]) == ["10", "12"]


def test_a_model_trained_on_test_people_is_refused_by_name_and_number():
    student = Declaration(name="student", trained_on=people_text(f"p{n:04d}" for n in range(100)))
    with pytest.raises(MismatchError, match="student was trained on 5 of the 10 people of lfw: p0095, p0096, p0097 "
                                            "and 2 more"):
        check_unseen(student, [f"p{n:04d}" for n in range(95, 105)], benchmark="lfw")
    assert check_unseen(student, ["p0099", "p0100"], force=True) == {"trained_on_test_people": 1}
    assert check_unseen(student, ["p0100"]) == {"trained_on_test_people": 0}


def test_where_nobody_is_named_nothing_is_claimed():
    assert check_unseen(Declaration(name="x", trained_on="MS1M"), ["p1"]) == {"trained_on_test_people": None}
    assert check_unseen(Declaration(name="x", trained_on="[p1]"), []) == {"trained_on_test_people": None}


def test_a_hash_of_the_same_list_is_enough_and_of_another_tells_nothing():
    odd = ["a, b", "c..d"]
    text = people_text(odd)
    assert "[" not in text
    with pytest.raises(MismatchError):
        check_unseen({"name": "x", "trained_on": text}, odd)
    assert check_unseen({"name": "x", "trained_on": text}, ["c..d"]) == {"trained_on_test_people": None}

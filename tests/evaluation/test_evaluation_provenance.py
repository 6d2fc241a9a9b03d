"""A recogniser is not tested on people whom it was trained on, nor on pairs it was chosen by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from negface.evaluation.provenance import (
    check_embedded,
    check_undeveloped,
    check_unseen,
    development_text,
    people_text,
    trained_people,
)
from negface.foundation.errors import MismatchError
from negface.perception import Declaration, Embeddings
from negface.perception.declarations import declaration_from_dict

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


CONTENT = "ab" * 32


def test_weights_chosen_by_a_benchmark_are_refused_on_it_and_on_its_people():
    text = development_text([("dev, [one]", CONTENT, ["p1", "p2"]), ("other", "cd" * 32, [])])
    assert text.startswith(f"dev_ _one_: content {CONTENT}, 2 identities [p1..p2], sha256 ")
    student = Declaration(name="student", developed_on=text)
    with pytest.raises(MismatchError, match="the weights of student were chosen by these pairs"):
        check_undeveloped(student, "cd" * 32, [])
    with pytest.raises(MismatchError, match="chosen by pairs of 1 of its 2 people, p2 first"):
        check_undeveloped(student, "ef" * 32, ["p2", "p3"])
    assert check_undeveloped(student, "ef" * 32, ["p3", "one"]) == {"developed_on_benchmark": False}
    assert check_undeveloped(student, CONTENT, [], force=True) == {"developed_on_benchmark": True}
    assert check_undeveloped(Declaration(name="x"), CONTENT, ["p1"]) == {"developed_on_benchmark": None}


def test_what_a_recogniser_was_developed_on_survives_its_declaration_and_changes_no_other():
    plain = Declaration(name="x", sha256="0")
    assert "developed_on" not in plain.to_dict()
    chosen = replace(plain, developed_on="dev")
    assert declaration_from_dict(chosen.to_dict()) == chosen


def test_embeddings_by_a_recogniser_that_knows_their_people_are_refused():
    declared = Declaration(name="judge", trained_on=people_text(["b", "c"])).to_dict()
    judged = Embeddings(np.eye(3, dtype=np.float32), np.array([0, 1, 1]), ("a", "b", "c"),
                        provenance={"declaration": declared})
    with pytest.raises(MismatchError, match="judge was trained on 1 of the 2 people of the embeddings: b"):
        check_embedded(judged)  # nobody's pictures are c's
    assert check_embedded(judged, force=True) == {"trained_on_test_people": 1}
    assert check_embedded(replace(judged, provenance={})) == {"trained_on_test_people": None}
    assert check_embedded(replace(judged, identities=())) == {"trained_on_test_people": None}

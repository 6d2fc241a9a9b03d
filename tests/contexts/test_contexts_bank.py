"""A bank keeps who, from where and by which recogniser, and refuses what is not a set of contexts."""

from __future__ import annotations

import numpy as np
import pytest

from negface.contexts import ContextBank, sources
from negface.contexts.bank import unit_rows
from negface.foundation.errors import FormatError, InputError, MismatchError, OutputError
from negface.foundation.tensors import write_tensors


def vectors(n=6, dim=8, seed=0):
    return unit_rows(np.random.default_rng(seed).standard_normal((n, dim)))


def ids(n=6):
    return tuple(f"p{row}" for row in range(n))


def bank(**provenance):
    return ContextBank(vectors(), ids(), provenance)


def test_a_saved_bank_comes_back_with_everything(tmp_path):
    made = bank(source="pca", seed=3, conditioner={"name": "edge", "hash": "ab"}, describes_real_people=True)
    made.save(tmp_path / "bank.safetensors")
    back = ContextBank.load(tmp_path / "bank.safetensors")
    assert np.array_equal(back.contexts, made.contexts)
    assert back.contexts.dtype == np.float32
    assert (back.ids, back.provenance, back.hash) == (made.ids, made.provenance, made.hash)
    assert back.conditioner == {"name": "edge", "hash": "ab"}
    assert back.describes_real_people
    assert "real people" in back.release_note


def test_equal_banks_give_identical_files(tmp_path):
    bank(source="a", seed=1).save(tmp_path / "one.safetensors")
    bank(seed=1, source="a").save(tmp_path / "two.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()


def test_the_hash_names_vectors_ids_and_provenance():
    other = vectors()
    other[0] = -other[0]
    hashes = {bank().hash, ContextBank(other, ids()).hash, ContextBank(vectors(), ids()[::-1]).hash, bank(seed=1).hash}
    assert len(hashes) == 4


def test_a_subset_keeps_ids_and_remembers_its_parent():
    whole = bank(describes_real_people=True)
    part = whole.subset([4, 1])
    assert part.ids == ("p4", "p1")
    assert np.array_equal(part.contexts, whole.contexts[[4, 1]])
    assert part.provenance["parent"] == whole.hash
    assert part.describes_real_people
    assert whole.subset(slice(0, 2)).ids == ("p0", "p1")
    assert whole.subset(np.arange(6) > 3).ids == ("p4", "p5")


@pytest.mark.parametrize("fault", [np.nan, np.inf])
def test_a_row_that_is_not_finite_is_named(fault):
    wrong = vectors()
    wrong[3, 2] = fault
    with pytest.raises(InputError, match="row 3.*NaN or infinity"):
        ContextBank(wrong, ids())


def test_a_row_that_is_not_unit_is_named_and_not_mended_silently():
    wrong = vectors()
    wrong[2] *= 1.002
    with pytest.raises(InputError, match=r"row 2: has length 1\.002.*normalise"):
        ContextBank(wrong, ids())
    mended = ContextBank.from_vectors(wrong, ids(), normalise=True)
    assert np.allclose(mended.contexts, vectors(), atol=1e-6)


@pytest.mark.parametrize(("contexts", "names", "message"), [
    (vectors().astype(np.float64), ids(), "float32"),
    (vectors()[0], ids(), r"\[n, d\]"),
    (vectors()[:0], (), r"\[n, d\]"),
    (vectors(), ids(5), "5 ids for 6"),
    (vectors(), ("a", "b", "c", "a", "d", "e"), "'a' stands twice"),
    (vectors(), ("a", "b", "c", "../d", "e", "f"), "folder name"),
    (vectors(), ("a", "b", "", "d", "e", "f"), "folder name"),
])
def test_a_bank_that_breaks_the_contract_is_refused(contexts, names, message):
    with pytest.raises(InputError, match=message):
        ContextBank(contexts, names)


def test_a_zero_vector_cannot_be_normalised():
    wrong = vectors()
    wrong[1] = 0
    with pytest.raises(InputError, match="row 1 has length zero"):
        ContextBank.from_vectors(wrong, normalise=True)


def test_contexts_of_another_conditioner_are_refused_unless_allowed():
    made = bank(conditioner={"name": "edge", "hash": "aa"})
    made.check_conditioner({"name": "edge renamed", "hash": "aa"})
    made.check_conditioner(None)
    bank().check_conditioner({"name": "edge", "hash": "aa"})
    with pytest.raises(MismatchError, match="edge.*expects.*other"):
        made.check_conditioner({"name": "other", "hash": "bb"})
    made.check_conditioner({"name": "other", "hash": "bb"}, allow_mismatch=True)


def test_a_truncated_bank_is_a_format_error(tmp_path):
    path = tmp_path / "bank.safetensors"
    bank().save(path)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(FormatError, match=r"bank\.safetensors.*not a complete"):
        ContextBank.load(path)


def test_a_file_with_a_bad_row_names_file_and_row(tmp_path):
    path = tmp_path / "bank.safetensors"
    wrong = vectors()
    wrong[5, 0] = np.nan
    write_tensors(path, {"contexts": wrong}, {"ids": ids(), "provenance": {}})
    with pytest.raises(FormatError, match=r"bank\.safetensors, contexts, row 5"):
        ContextBank.load(path)


@pytest.mark.parametrize(("metadata", "said"), [
    ({"ids": 3}, "ids are a int"), ({"provenance": ["pca"]}, "provenance: is a list"),
    ({"provenance": {"conditioner": {"name": "r", "hash": 7}}}, "must be a dict with name and hash")])
def test_metadata_of_another_kind_is_named(tmp_path, metadata, said):
    path = tmp_path / "bank.safetensors"
    write_tensors(path, {"contexts": vectors()}, {"ids": list(ids()), **metadata})
    with pytest.raises(FormatError, match=said):
        ContextBank.load(path)


def test_a_bank_of_unknown_origin_counts_as_real_people(tmp_path):
    write_tensors(tmp_path / "bank.safetensors", {"contexts": vectors()}, {})
    loaded = ContextBank.load(tmp_path / "bank.safetensors")
    assert loaded.ids == tuple("012345")
    assert loaded.describes_real_people


def test_an_unwritable_output_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        sources.uniform(2, 4).save(tmp_path / "file" / "bank.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(OutputError):
        sources.uniform(2, 4).save(tmp_path / "folder.safetensors")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["file", "folder.safetensors"]

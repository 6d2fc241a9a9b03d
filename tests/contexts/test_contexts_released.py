"""Context files of the released systems: every way they were written, and clear refusals."""

import pickle

import numpy as np
import pytest
import torch

from negface.contexts import ContextBank
from negface.contexts.released import read_released, write_released
from negface.foundation.errors import FormatError, UnsafePickleError

VECTORS = torch.nn.functional.normalize(torch.randn(6, 8, generator=torch.Generator().manual_seed(1)), dim=1).numpy()
NAMED = {f"id{row}": vector for row, vector in enumerate(VECTORS)}


def legacy(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def pickled(content, path):
    path.write_bytes(pickle.dumps(content, protocol=2))


def in_npy(content, path):
    np.save(path, content)


WRITERS = {"torch": torch.save, "old torch": legacy, "pickle": pickled, "numpy": in_npy}
CONTENTS = {"arrays": NAMED, "rows": {name: row[None] for name, row in NAMED.items()},
            "whole numbers as ids": dict(enumerate(VECTORS)),
            "tensors": {name: torch.from_numpy(row) for name, row in NAMED.items()}}


@pytest.mark.parametrize(("writer", "kind"), [(writer, kind) for writer in WRITERS for kind in CONTENTS
                                              if kind != "tensors" or "torch" in writer])
def test_dict_of_vectors_keeps_every_bit_and_id(tmp_path, writer, kind):
    content = CONTENTS[kind]
    WRITERS[writer](content, tmp_path / "contexts.npy")
    bank = read_released(tmp_path / "contexts.npy")
    assert bank.contexts.tobytes() == VECTORS.tobytes()
    assert bank.ids == tuple(map(str, content))
    assert bank.describes_real_people


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_plain_array_is_normalised_as_uiface_does(tmp_path, dtype):
    np.save(tmp_path / "contexts.npy", (3 * VECTORS).astype(dtype))
    bank = read_released(tmp_path / "contexts.npy", real_people=False)
    assert np.allclose(bank.contexts, VECTORS, atol=1e-3 if dtype == "float16" else 1e-6)
    assert bank.ids == tuple("012345")
    assert bank.provenance["parameters"]["normalised"] is True


def test_bank_goes_back_with_every_bit_and_equal_banks_give_equal_files(tmp_path):
    bank = ContextBank.from_vectors(VECTORS, list(NAMED))
    for name in ("a.npy", "b.npy"):
        write_released(bank, tmp_path / name)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    back = torch.load(tmp_path / "a.npy", weights_only=False)
    assert {name: row.tobytes() for name, row in back.items()} == {name: row.tobytes() for name, row in NAMED.items()}
    assert read_released(tmp_path / "a.npy").ids == bank.ids


def test_file_written_back_names_numpy_as_the_old_code_knows_it(tmp_path):
    write_released(ContextBank.from_vectors(VECTORS), tmp_path / "a.npy")
    data = (tmp_path / "a.npy").read_bytes()
    assert b"numpy.core.multiarray" in data
    assert b"numpy._core" not in data


@pytest.mark.parametrize(("content", "words"), [
    ({}, "no context"), ({"a": VECTORS[0], "b": VECTORS[0][:4]}, r"'b'.*shape \[4\], expected \[8\]"),
    ({"a": "text"}, "'a'.*str, real numbers"), ({"a": VECTORS[0] * np.nan}, "'a'.*NaN"),
    ({"a": 0 * VECTORS[0]}, "zero"), ({1: VECTORS[0], "1": VECTORS[1]}, "two ids"), ([1, "x"], "real numbers"),
    (VECTORS[0], r"array \[8\], contexts are"),
    ({0: torch.tensor(3), 1: torch.tensor(0)}, "table of negatives.*negface negatives")])
def test_what_holds_no_contexts_is_refused_by_name(tmp_path, content, words):
    torch.save(content, tmp_path / "contexts.npy")
    with pytest.raises(FormatError, match=rf"contexts\.npy.*{words}"):
        read_released(tmp_path / "contexts.npy")


def test_truncated_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "contexts.npy"
    np.save(path, VECTORS)
    whole = path.read_bytes()
    for content in (whole[:40], whole[:-5], b"", b"text"):
        path.write_bytes(content)
        with pytest.raises(FormatError, match=r"contexts\.npy"):
            read_released(path)


class Attack:
    def __reduce__(self):
        return eval, ("1",)


@pytest.mark.parametrize("writer", WRITERS)
def test_attack_in_a_context_file_is_refused_by_name(tmp_path, writer):
    WRITERS[writer]({"a": Attack()}, tmp_path / "contexts.npy")
    with pytest.raises(UnsafePickleError, match=r"builtins\.eval|__builtin__\.eval"):
        read_released(tmp_path / "contexts.npy")

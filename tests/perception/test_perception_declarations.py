"""A declaration is given, lies beside the file, or is built in; it is never guessed and always checked."""

from __future__ import annotations

import dataclasses

import pytest

from negface.foundation.errors import FormatError, InputError, MismatchError
from negface.foundation.files import write_json
from negface.foundation.hashing import sha256_file
from negface.perception import Declaration, declaration_from_dict, load_recognizer, read_declaration
from negface.perception.declarations import resolve_declaration, sidecar_path
from negface.perception.known import KNOWN
from tiny_onnx import write_linear

TINY = {"name": "tiny", "size": [8, 8], "channels": "RGB", "mean": 127.5, "std": 127.5, "dim": 4}


def test_a_file_without_a_declaration_is_refused_and_told_how_to_declare(tmp_path):
    with pytest.raises(InputError, match=r"no declaration.*tiny\.onnx\.json.*\"channels\""):
        load_recognizer(write_linear(tmp_path / "tiny.onnx"))


def test_the_sidecar_beside_the_file_is_found(tmp_path):
    model = write_linear(tmp_path / "tiny.onnx")
    write_json(sidecar_path(model), TINY)
    found = load_recognizer(model).declaration
    assert (found.name, found.size, found.mean, found.sha256) == ("tiny", (8, 8), (127.5,) * 3, sha256_file(model))


def test_an_explicit_declaration_goes_before_the_sidecar(tmp_path):
    model = write_linear(tmp_path / "tiny.onnx")
    write_json(sidecar_path(model), TINY)
    toml = tmp_path / "mine.toml"
    toml.write_text('name = "mine"\nsize = [8, 8]\nchannels = "BGR"\nmean = [1, 2, 3]\nstd = 128\ndim = 4\n')
    found = resolve_declaration(model, toml)
    assert (found.name, found.channels, found.mean, found.std) == ("mine", "BGR", (1.0, 2.0, 3.0), (128.0,) * 3)


def test_a_file_of_another_hash_than_declared_is_refused(tmp_path):
    model = write_linear(tmp_path / "tiny.onnx", seed=1)
    other = write_linear(tmp_path / "other.onnx", seed=2)
    with pytest.raises(MismatchError, match="SHA-256"):
        resolve_declaration(model, {**TINY, "sha256": sha256_file(other)})


@pytest.mark.parametrize(("change", "said"), [
    ({"chanels": "RGB"}, "did you mean 'channels'"),
    ({"channels": "GRAY"}, "one of: RGB, BGR"),
    ({"size": [112]}, "size needs 2 numbers"),
    ({"size": "112"}, "wrong type"),
    ({"std": 0}, "std 3 above zero"),
    ({"mean": ["a", "b", "c"]}, "numbers were expected"),
    ({"kind": "torch"}, "needs an architecture"),
])
def test_a_wrong_declaration_says_what_is_wrong(change, said):
    with pytest.raises(InputError, match=said):
        declaration_from_dict({**TINY, **change})


@pytest.mark.parametrize("key", ["size", "channels", "mean", "std", "dim"])
def test_what_cannot_be_guessed_must_be_declared(key):
    with pytest.raises(InputError, match=f"lacks {key}; these are never guessed"):
        declaration_from_dict({name: value for name, value in TINY.items() if name != key})


def test_broken_declaration_files_are_named(tmp_path):
    for name, text in (("d.json", "{"), ("d.toml", "name ="), ("list.json", "[1]")):
        (tmp_path / name).write_text(text)
        with pytest.raises(FormatError, match=name):
            read_declaration(tmp_path / name)


def test_a_model_of_another_task_is_refused(tmp_path):
    with pytest.raises(InputError, match="declared as a pose, a recognizer was expected"):
        resolve_declaration(write_linear(tmp_path / "tiny.onnx"), {**TINY, "task": "pose"})


def test_a_known_name_without_its_file_says_where_it_comes_from():
    with pytest.raises(InputError, match="ships no weights"):
        load_recognizer("edgeface-xs")


def test_known_files_survive_their_own_json():
    assert len(KNOWN) == 6
    for sha256, item in KNOWN.items():
        assert len(sha256) == 64
        assert declaration_from_dict(item.to_dict()) == item
        assert item.licence != "unknown"


def test_a_declaration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Declaration("tiny").dim = 3

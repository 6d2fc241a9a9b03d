"""Embeddings on disk keep who, which picture and by which recogniser; damaged ones are refused; ``negface embed``."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from negface import datasets
from negface.foundation.errors import FormatError, InputError
from negface.foundation.files import write_json
from negface.perception import embed_dataset, load_recognizer, read_embeddings, write_embeddings
from tiny_onnx import write_linear

TINY = {"name": "tiny", "size": [32, 32], "channels": "RGB", "mean": 127.5, "std": 127.5, "dim": 4}
SUFFIXES = [".npz", ".safetensors"]


@pytest.fixture
def eyes_file(tmp_path):
    file = write_linear(tmp_path / "tiny.onnx", size=32)
    write_json(f"{file}.json", TINY)
    return file


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_was_written_is_read_and_equal_content_gives_equal_bytes(tmp_path, suffix):
    vectors, labels = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32), [0, 0, 1, 1, 2, 2]
    keep = {"identities": "abc", "images": [f"{i}.png" for i in range(6)],
            "provenance": {"recognizer": {"name": "tiny", "hash": "00"}}}
    for name in ("one", "two"):
        write_embeddings(tmp_path / (name + suffix), vectors, np.array(labels), **keep)
    found = read_embeddings(tmp_path / f"one{suffix}")
    np.testing.assert_array_equal(found.embeddings, vectors)
    assert found.labels.tolist() == labels
    assert (found.identities, found.images[5]) == (tuple("abc"), "5.png")
    assert found.recognizer == {"name": "tiny", "hash": "00"}
    assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()


def test_safetensors_stay_on_disk_until_touched(tmp_path):
    write_embeddings(tmp_path / "e.safetensors", np.ones((5, 3)), np.arange(5))
    assert isinstance(read_embeddings(tmp_path / "e.safetensors").embeddings, np.memmap)


def test_plain_arrays_of_others_are_read(tmp_path):
    np.savez(tmp_path / "plain.npz", embeddings=np.eye(3, dtype=np.float32), labels=np.arange(3, dtype=np.int32))
    found = read_embeddings(tmp_path / "plain.npz")
    assert (len(found), found.recognizer, found.labels.dtype) == (3, None, np.int64)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("keep", [0, 30, -20])
def test_truncated_embeddings_are_refused(tmp_path, suffix, keep):
    path = tmp_path / f"e{suffix}"
    write_embeddings(path, np.ones((50, 30)), np.arange(50))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(FormatError, match=f"e{suffix}: not a complete"):
        read_embeddings(path)


@pytest.mark.parametrize(("arrays", "said"), [
    ({"embeddings": np.eye(3)}, "has no labels"),
    ({"embeddings": np.eye(3), "labels": np.arange(2)}, "3 integers were expected"),
    ({"embeddings": np.eye(3), "labels": np.ones(3)}, "labels are float64"),
    ({"embeddings": np.ones(3), "labels": np.arange(3)}, "floats"),
    ({"embeddings": np.array([{}], object), "labels": np.arange(1)}, "plain arrays"),
])
def test_inconsistent_embeddings_say_what_is_wrong(tmp_path, arrays, said):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(FormatError, match=said):
        read_embeddings(tmp_path / "bad.npz")


def test_nothing_wrong_is_ever_written(tmp_path):
    for vectors, labels, more in ((np.full((2, 2), np.nan), [0, 1], {}), (np.eye(2), [0], {}),
                                  (np.eye(2), [0, 5], {"identities": "ab"}), (np.eye(2), [0, 1], {"images": ["x"]})):
        with pytest.raises(InputError):
            write_embeddings(tmp_path / "e.npz", vectors, np.array(labels), **more)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_embedded_in_order_whatever_the_batch(face_folder, eyes_file):
    root = face_folder(3, 2)
    eyes = load_recognizer(eyes_file)
    found = embed_dataset(root, eyes)
    each = [eyes.embed(image[None])[0] for image, _ in datasets.open(root)]
    np.testing.assert_array_equal(found.embeddings, each)
    np.testing.assert_array_equal(embed_dataset(root, eyes, batch=4).embeddings, each)
    assert found.images[:2] == ("0000/00.png", "0000/01.png")
    assert found.identities == ("0000", "0001", "0002")
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_an_unusable_picture_of_a_dataset_is_named(face_folder, tmp_path):
    root = face_folder(2, 2)
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(root / "0001" / "01.png")
    file = write_linear(tmp_path / "plain.onnx", size=32)
    with pytest.raises(InputError, match=r"0001/01\.png: plain gave a zero"):
        embed_dataset(root, load_recognizer(file, {**TINY, "name": "plain", "mean": 0}), batch=3)


def test_the_dataset_hash_follows_a_single_pixel(face_folder, eyes_file, face):
    root, eyes = face_folder(2, 2), load_recognizer(eyes_file)
    before = embed_dataset(root, eyes).provenance["dataset"]["hash"]
    assert embed_dataset(root, eyes, batch=1).provenance["dataset"]["hash"] == before
    changed = face(0, 0).copy()
    changed[0, 0, 0] ^= 1
    Image.fromarray(changed).save(root / "0000" / "00.png")
    assert embed_dataset(root, eyes).provenance["dataset"]["hash"] != before


def test_the_command_writes_embeddings_with_their_provenance(face_folder, eyes_file, tmp_path, negface):
    root, out = face_folder(2, 3), tmp_path / "e.safetensors"
    code, text, _ = negface("embed", root, "--recognizer", eyes_file, "--flip", "--out", out, "--json",
                            tmp_path / "r.json")
    assert code == 0
    assert "embedded 6 images of 2 identities with tiny" in text
    found, result = read_embeddings(out), json.loads((tmp_path / "r.json").read_text())
    assert found.provenance["flip"] is True
    assert found.recognizer == load_recognizer(eyes_file).declaration.identity == result["recognizer"]
    np.testing.assert_allclose(np.linalg.norm(found.embeddings, axis=1), 1, atol=1e-6)


def test_grey_and_16_bit_pictures_are_converted_and_said(face_folder, eyes_file, tmp_path, negface):
    root = face_folder(1, 1)
    Image.fromarray(np.full((32, 32), 90, np.uint8)).save(root / "0000" / "grey.png")
    Image.fromarray(np.full((32, 32), 25700, np.uint16)).save(root / "0000" / "deep.png")
    code, text, _ = negface("embed", root, "--recognizer", eyes_file, "--out", tmp_path / "e.npz")
    assert code == 0
    assert "1 x grey picture" in text
    assert "1 x 16-bit" in text
    assert sum(read_embeddings(tmp_path / "e.npz").provenance["converted"].values()) == 2


@pytest.mark.parametrize("fault", ["not a picture", "empty folder", "other size", "no declaration", "bad ending"])
def test_the_command_refuses_bad_input_and_writes_nothing(face_folder, eyes_file, tmp_path, negface, face, fault):
    root, out = face_folder(2, 2), tmp_path / "e.npz"
    said = {"not a picture": "00.png: not a picture", "empty folder": "is empty", "no declaration": "no declaration",
            "other size": "0001/01.png: images are 16x16, tiny takes 32x32", "bad ending": "kept as .npz"}[fault]
    if fault == "not a picture":
        (root / "0001" / "00.png").write_text("hello")
    elif fault == "other size":
        Image.fromarray(face(1, 1, 16)).save(root / "0001" / "01.png")
    elif fault == "empty folder":
        root = tmp_path / "nothing"
        root.mkdir()
    elif fault == "no declaration":
        (eyes_file.parent / f"{eyes_file.name}.json").unlink()
    else:
        out = tmp_path / "e.csv"
    code, _, error = negface("embed", root, "--recognizer", eyes_file, "--out", out)
    assert code == 2
    assert said in error
    assert error.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("method", [1, 99])
def test_npz_of_an_unknown_compression_is_refused_and_not_a_crash(tmp_path, method):
    write_embeddings(tmp_path / "e.npz", np.eye(3, dtype=np.float32), np.arange(3))
    data = (tmp_path / "e.npz").read_bytes()
    for magic, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):  # found by make fuzz
        start = data.index(magic) + at
        data = data[:start] + bytes([method, 0]) + data[start + 2 :]
    (tmp_path / "e.npz").write_bytes(data)
    with pytest.raises(FormatError, match=r"e\.npz.*not a complete \.npz"):
        read_embeddings(tmp_path / "e.npz")

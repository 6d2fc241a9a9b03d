"""A recogniser's answer is the graph's on the declared input, whatever the batch, the threads or the file kind."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from negface.foundation import registry
from negface.foundation.errors import FormatError, InputError, MismatchError
from negface.perception import Recognizer, load_recognizer, same_recognizer
from tiny_onnx import linear_weights, write_linear

TINY = {"name": "tiny", "size": [8, 8], "channels": "RGB", "mean": [1, 2, 3], "std": [4, 5, 6], "dim": 4}


def pictures(n: int, size: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def slow_raw(images: np.ndarray, weights: np.ndarray, *, channels: str = "RGB") -> np.ndarray:
    """Pixel by pixel, in float64."""
    rows = []
    for image in images:
        planes = [(image[..., "RGB".index(name)].astype(float) - mean) / std
                  for name, mean, std in zip(channels, TINY["mean"], TINY["std"])]
        rows.append(np.concatenate([plane.ravel() for plane in planes]) @ weights.astype(float))
    return np.array(rows)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
@pytest.mark.parametrize("batch", ["n", 1, 3])
def test_embeddings_equal_the_slow_way(tmp_path, channels, batch):
    model = write_linear(tmp_path / "tiny.onnx", batch=batch)
    declared = {**TINY, "channels": channels, **({"batch": batch} if batch != "n" else {})}
    images = pictures(20)
    got = load_recognizer(model, declared).embed(images)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, unit(slow_raw(images, linear_weights(8, 4), channels=channels)), atol=2e-6)


def test_flip_sums_raw_embeddings_before_normalising(tmp_path):
    images, weights = pictures(5), linear_weights(8, 4)
    summed = slow_raw(images, weights) + slow_raw(images[:, :, ::-1], weights)
    got = load_recognizer(write_linear(tmp_path / "tiny.onnx"), TINY).embed(images, flip=True)
    np.testing.assert_allclose(got, unit(summed), atol=2e-6)
    mean_of_units = unit(slow_raw(images, weights)) + unit(slow_raw(images[:, :, ::-1], weights))
    assert np.abs(got - unit(mean_of_units)).max() > 1e-3


def test_threads_do_not_change_a_bit(tmp_path):
    model, images = write_linear(tmp_path / "tiny.onnx"), pictures(50)
    one, many = (load_recognizer(model, TINY, threads=threads).embed(images) for threads in (1, 4))
    assert one.tobytes() == many.tobytes()


def test_no_images_give_no_rows(tmp_path):
    assert load_recognizer(write_linear(tmp_path / "tiny.onnx"), TINY).embed(pictures(0)).shape == (0, 4)


def test_images_of_another_size_are_refused_unless_a_resize_is_asked_for(tmp_path):
    eyes = load_recognizer(write_linear(tmp_path / "tiny.onnx"), TINY)
    with pytest.raises(InputError, match="images are 16x16, tiny takes 8x8"):
        eyes.embed(pictures(2, size=16))
    assert eyes.embed(pictures(2, size=16), resize=True).shape == (2, 4)
    flat = np.full((1, 16, 16, 3), 77, np.uint8)
    np.testing.assert_array_equal(eyes.embed(flat, resize=True), eyes.embed(flat[:, :8, :8]))


@pytest.mark.parametrize(("images", "said"), [
    (np.zeros((1, 8, 8, 3), np.uint16), "uint16"),
    (np.zeros((1, 8, 8, 3), np.float32), "float32"),
    (np.zeros((1, 8, 8), np.uint8), r"\[1, 8, 8\]"),
    (np.zeros((8, 8, 3), np.uint8), "give a batch"),
    (np.zeros((1, 8, 8, 1), np.uint8), "repeat a grey channel"),
])
def test_arrays_that_are_no_uint8_rgb_batch_are_refused(tmp_path, images, said):
    with pytest.raises(InputError, match=said):
        load_recognizer(write_linear(tmp_path / "tiny.onnx"), TINY).embed(images)


@pytest.mark.parametrize("keep", [0, 40, 2000])
def test_a_truncated_graph_is_a_format_error(tmp_path, keep):
    model = write_linear(tmp_path / "tiny.onnx")
    model.write_bytes(model.read_bytes()[:keep])
    with pytest.raises(FormatError, match=r"tiny\.onnx: not a complete ONNX model"):
        load_recognizer(model, TINY)


@pytest.mark.parametrize(("graph", "declared", "said"), [
    ({}, {"size": [16, 16]}, "takes 8 for height, 16 is declared"),
    ({"channels": 1, "weights": np.ones((64, 4), np.float32)}, {}, "takes 1 for channels, 3 is declared"),
    ({"batch": 1}, {}, "fixed to batches of 1, any is declared"),
    ({}, {"dim": 512}, "gives 4 numbers a picture, 512 are declared"),
    ({}, {"input_name": "data"}, r"has no input 'data' \(it has input\)"),
])
def test_a_graph_that_contradicts_its_declaration_is_refused(tmp_path, graph, declared, said):
    with pytest.raises(MismatchError, match=said):
        load_recognizer(write_linear(tmp_path / "tiny.onnx", **graph), {**TINY, **declared})


def test_a_zero_embedding_names_the_picture(tmp_path):
    weights = np.ones((192, 4), np.float32)
    eyes = load_recognizer(write_linear(tmp_path / "tiny.onnx", weights=weights), {**TINY, "mean": 0, "std": 1})
    images = pictures(3)
    images[1] = 0
    with pytest.raises(InputError, match="image 1: tiny gave a zero"):
        eyes.embed(images)


def test_recognizers_are_the_same_by_hash_never_by_name(tmp_path):
    first = load_recognizer(write_linear(tmp_path / "a.onnx", seed=1), TINY)
    copy = load_recognizer(write_linear(tmp_path / "b.onnx", seed=1), {**TINY, "name": "renamed"})
    other = load_recognizer(write_linear(tmp_path / "c.onnx", seed=2), TINY)
    assert same_recognizer(first, copy)
    assert not same_recognizer(first, other)
    assert same_recognizer(first.declaration.identity, copy.declaration.sha256.upper())
    assert not same_recognizer(None, None)
    assert not same_recognizer({"name": "tiny"}, {"name": "tiny"})


def make_linear_module():
    import torch

    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 4, bias=False))


@pytest.fixture
def linear_architecture(monkeypatch):
    name = "tiny-linear"
    entry = registry.Entry("model", name, f"{__name__}:make_linear_module", "for this test")
    monkeypatch.setitem(registry._ENTRIES, ("model", name), entry)
    return name


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_torch_state_dict_gives_what_the_graph_gives(tmp_path, linear_architecture, suffix):
    import torch
    from safetensors.torch import save_file

    state = {"1.weight": torch.from_numpy(linear_weights(8, 4)).T.contiguous()}
    path = tmp_path / f"tiny{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save({"state_dict": state}, path)
    declared = {**TINY, "kind": "torch", "architecture": linear_architecture}
    onnx = load_recognizer(write_linear(tmp_path / "tiny.onnx"), TINY)
    found = load_recognizer(path, declared)
    np.testing.assert_allclose(found.embed(pictures(9)), onnx.embed(pictures(9)), atol=2e-6)
    module = make_linear_module()
    module.load_state_dict(state)
    in_memory = Recognizer.from_module(module, dataclasses.replace(found.declaration, sha256=""))
    np.testing.assert_array_equal(in_memory.embed(pictures(9)), found.embed(pictures(9)))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_that_runs_code_is_refused_before_it_runs(tmp_path, linear_architecture):
    import pickle

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = tmp_path / "bomb.pth"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(FormatError, match="not a plain state dict"):
        load_recognizer(path, {**TINY, "kind": "torch", "architecture": linear_architecture})
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_architecture_are_refused(tmp_path, linear_architecture):
    import torch
    from safetensors.torch import save_file

    path = tmp_path / "other.safetensors"
    save_file({"1.weight": torch.zeros(5, 192)}, path)
    with pytest.raises(FormatError, match="does not fit tiny-linear"):
        load_recognizer(path, {**TINY, "kind": "torch", "architecture": linear_architecture})


@pytest.mark.parametrize("device", ["toaster", "cpu:0", "cuda:x"])
def test_a_graph_is_refused_a_device_that_is_none(tmp_path, device):
    path = write_linear(tmp_path / "tiny.onnx")
    with pytest.raises(InputError, match="no device is called"):
        load_recognizer(path, TINY, device=device)


@pytest.mark.parametrize("device", ["toaster", "cuda:999"])
def test_a_device_that_is_not_there_is_refused(tmp_path, linear_architecture, device):
    import torch
    from safetensors.torch import save_file

    path = tmp_path / "tiny.safetensors"
    save_file({"1.weight": torch.from_numpy(linear_weights(8, 4)).T.contiguous()}, path)
    with pytest.raises(InputError, match=device):
        load_recognizer(path, {**TINY, "kind": "torch", "architecture": linear_architecture}, device=device)

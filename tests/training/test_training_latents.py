"""Cached latents: once, both flips, of the named people, with their own contexts."""

import numpy as np
import pytest
import torch
from tiny_training import embeddings, unit, vae_folder

from negface.foundation.errors import FormatError, InputError, MismatchError
from negface.models import VQAutoencoder
from negface.training import latents as room
from negface.training.latents import cache_latents, load_faces
from negface.training.trainers import load_autoencoder


@pytest.fixture
def autoencoder(tmp_path):
    return load_autoencoder(vae_folder(tmp_path / "vae"))


@pytest.fixture
def encodings(monkeypatch):
    """How often pictures were encoded."""
    calls, real = [], room._encode
    monkeypatch.setattr(room, "_encode", lambda *arguments: calls.append(1) or real(*arguments))
    return calls


def test_latents_are_encoded_once_and_then_read(face_folder, tmp_path, autoencoder, encodings):
    faces = load_faces(face_folder(3, 2, size=16), 16)
    arguments = (faces, *autoencoder, embeddings(), None, tmp_path / "latents.safetensors")
    first, second = cache_latents(*arguments), cache_latents(*arguments)
    assert encodings == [1]
    assert np.array_equal(first.latents, second.latents)
    assert first.hash == second.hash


@pytest.mark.parametrize("change", ["faces", "autoencoder", "contexts"])
def test_another_input_is_encoded_anew(face_folder, tmp_path, autoencoder, encodings, change):
    folder, path = face_folder(3, 2, size=16), tmp_path / "latents.safetensors"
    cache_latents(load_faces(folder, 16), *autoencoder, embeddings(), None, path)
    other = load_faces(face_folder(3, 2, size=20, name="other") if change == "faces" else folder, 16)
    model = (autoencoder[0], "another") if change == "autoencoder" else autoencoder
    cache_latents(other, *model, embeddings(seed=int(change == "contexts")), None, path)
    assert encodings == [1, 1]


def test_both_flips_are_cached_scaled_and_before_quantisation(face_folder, tmp_path, autoencoder, face):
    faces = load_faces(face_folder(3, 2, size=16), 16)
    found = cache_latents(faces, *autoencoder, embeddings(), None, tmp_path / "l.safetensors")
    model = autoencoder[0]
    picture = torch.from_numpy(face(1, 0, 16)).permute(2, 0, 1)[None].float().div(127.5).sub(1)
    with torch.no_grad():
        for flip, image in enumerate((picture, picture.flip(3))):
            expected = (model.encode(image) * model.config.scaling_factor)[0].numpy()
            np.testing.assert_allclose(found.latents[2, flip], expected, atol=2e-3 * np.abs(expected).max())
    assert model.config.scaling_factor == 0.5
    assert not np.array_equal(found.latents[:, 0], found.latents[:, 1])


def test_mirror_images_have_their_own_contexts_where_given(face_folder, tmp_path, autoencoder):
    faces, path = load_faces(face_folder(3, 2, size=16), 16), tmp_path / "l.safetensors"
    alone = cache_latents(faces, *autoencoder, embeddings(), None, path)
    assert np.array_equal(alone.contexts[:, 0], alone.contexts[:, 1])
    both = cache_latents(faces, *autoencoder, embeddings(), embeddings(seed=9), path)
    np.testing.assert_allclose(both.contexts[:, 1], unit(6, 9), atol=1e-6)


def test_only_the_named_people_are_trained_on_with_their_own_rows(face_folder, tmp_path, autoencoder):
    faces = load_faces(face_folder(4, 2, size=16), 16, ["0003", "0001"])
    assert faces.identities == ("0001", "0003")
    assert faces.rows.tolist() == [2, 3, 6, 7]
    found = cache_latents(faces, *autoencoder, embeddings(4), None, tmp_path / "l.safetensors")
    np.testing.assert_allclose(found.contexts[:, 0], unit(8)[[2, 3, 6, 7]], atol=1e-6)
    assert len(found.latents) == 4


def test_unknown_people_and_nobody_are_refused(face_folder):
    folder = face_folder(2, 1, size=16)
    with pytest.raises(InputError, match="2 identities are not in the dataset, the first is '0007'"):
        load_faces(folder, 16, ["0001", "0008", "0007"])
    with pytest.raises(InputError, match="no pictures to train on"):
        load_faces(folder, 16, [])


@pytest.mark.parametrize("given", [(3, 3), (2, 2), (2, 3)])
def test_embeddings_of_another_dataset_are_refused(face_folder, tmp_path, autoencoder, given):
    faces = load_faces(face_folder(3, 2, size=16), 16)
    with pytest.raises(MismatchError, match="are not of these pictures"):
        cache_latents(faces, *autoencoder, embeddings(*given), None, tmp_path / "l.safetensors")
    assert not (tmp_path / "l.safetensors").exists()


def test_pictures_are_resized_to_what_the_autoencoder_takes(face_folder):
    assert load_faces(face_folder(1, 2, size=40), 16).images.shape == (2, 16, 16, 3)


def test_a_folder_that_is_no_autoencoder_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no diffusion_pytorch_model"):
        load_autoencoder(tmp_path / "empty")
    folder = vae_folder(tmp_path / "vae")
    weights = folder / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(FormatError, match="not a complete autoencoder"):
        load_autoencoder(folder)


def test_the_autoencoder_is_frozen(autoencoder):
    assert isinstance(autoencoder[0], VQAutoencoder)
    assert not autoencoder[0].training
    assert not any(value.requires_grad for value in autoencoder[0].parameters())

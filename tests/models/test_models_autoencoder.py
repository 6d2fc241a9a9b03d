"""The autoencoder's contract: latents before quantisation, snapping, folding of pixels, shapes, files."""

import golden_networks as golden
import pytest
import torch

from negface.foundation.errors import InputError
from negface.models import VQAutoencoder

TINY = {"image_size": 16, "channels": 32, "multipliers": (1, 2), "blocks": 1, "codebook_size": 24}


def vae(**options):
    return golden.rebuild(VQAutoencoder(**{**TINY, **options}))


@pytest.fixture
def images():
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


@torch.no_grad()
def test_latents_are_taken_before_quantisation(images):
    model = vae()
    latents = model.encode(images)
    codes = model.quantize.embedding.weight
    nearest = torch.cdist(latents.permute(0, 2, 3, 1).reshape(-1, 3), codes).min(1).values
    assert nearest.min() > 1e-4


@torch.no_grad()
def test_quantizer_takes_the_nearest_code(images):
    """Against all distances, one cell at a time."""
    model = vae()
    latents = model.encode(images)
    quantized, indices = model.quantize(latents)
    codes = model.quantize.embedding.weight
    for n in range(2):
        for y in range(8):
            for x in range(8):
                best = (codes - latents[n, :, y, x]).square().sum(1).argmin()
                assert indices[n, y, x] == best
                assert torch.equal(quantized[n, :, y, x], codes[best])


@torch.no_grad()
def test_decoding_snaps_to_the_codebook_when_told_to(images):
    model, plain = vae(), vae(requantize=False)
    latents = model.encode(images)
    snapped = model.quantize(latents)[0]
    assert torch.equal(model.decode(latents), plain.decode(snapped))
    assert torch.equal(plain.decode(latents), model.decode(latents, requantize=False))
    assert golden.distance(model.decode(latents), plain.decode(latents)) > 1e-3


@pytest.mark.parametrize(("options", "latent"), [
    ({}, (3, 8, 8)), ({"patch": 2}, (3, 4, 4)), ({"multipliers": (1, 2, 2)}, (3, 4, 4)),
    ({"patch": 2, "latent_channels": 4, "multipliers": (1,)}, (4, 8, 8))])
@torch.no_grad()
def test_latent_shape_and_downsample_say_what_comes_out(images, options, latent):
    model = vae(**options)
    latents = model.encode(images)
    assert tuple(latents.shape[1:]) == model.latent_shape == latent
    assert model.downsample == 16 // latent[1]
    assert model.decode(latents).shape == images.shape


@torch.no_grad()
def test_larger_pictures_than_trained_for_are_encoded_too():
    assert vae().encode(torch.zeros(1, 3, 32, 48)).shape == (1, 3, 16, 24)


@pytest.mark.parametrize("shape", [(2, 1, 16, 16), (3, 16, 16), (2, 3, 15, 16)])
def test_wrong_pictures_are_named(shape):
    with pytest.raises(InputError, match=r"expected \[n, 3, H, W\] with sides divisible by 2"):
        vae().encode(torch.zeros(shape))


@pytest.mark.parametrize("requantize", [True, False])
def test_wrong_latents_are_named(requantize):
    with pytest.raises(InputError, match=r"\(2, 4, 8, 8\), expected \[n, 3, h, w\]"):
        vae().decode(torch.zeros(2, 4, 8, 8), requantize=requantize)


@pytest.mark.parametrize(("options", "what"), [
    ({"channels": 48}, "multiple of 32"), ({"image_size": 17}, "not a multiple of 2"),
    ({"patch": 16}, "not a multiple of 32"),
    ({"group_channels": 24}, "group_channels 24 does not divide")])
def test_impossible_autoencoders_are_refused(options, what):
    with pytest.raises(InputError, match=what):
        VQAutoencoder(**{**TINY, **options})


def test_a_saved_autoencoder_comes_back_with_its_scale(tmp_path, images):
    model = vae(scaling_factor=0.25, requantize=False, patch=2, group_channels=16)
    model.save_pretrained(tmp_path)
    back = VQAutoencoder.from_pretrained(tmp_path).eval()
    assert (back.config.scaling_factor, back.config.requantize, back.config.patch) == (0.25, False, 2)
    with torch.no_grad():
        assert torch.equal(back.decode(back.encode(images)), model.decode(model.encode(images)))

"""The networks compute what the published ones do, entry by entry and number by number."""

import golden_networks as golden
import pytest
import torch
from golden_networks import distance

from negface.foundation import registry
from negface.models import IDiffUNet, VQAutoencoder, backbones

UNETS = ("unet_ca_full", "unet_adagn_full", "unet_ca_small", "unet_adagn_small")
TOLERANCE = 1e-4


def parameters(model):
    return sum(value.numel() for value in model.parameters())


def on_meta(build, *arguments, **options):
    with torch.device("meta"):
        return build(*arguments, **options)


@pytest.mark.parametrize("name", UNETS)
def test_unet_has_the_published_entries(name):
    described = golden.description(name)
    model = on_meta(IDiffUNet, **golden.options(name))
    assert golden.shapes(model) == described["state_dict"]
    assert parameters(model) == described["parameters"]


def test_full_unets_have_the_published_sizes():
    assert parameters(on_meta(IDiffUNet)) == 216_341_187
    assert parameters(on_meta(IDiffUNet, condition_type="AdaGN")) == 134_595_939
    assert parameters(on_meta(IDiffUNet, learned_null=True)) == 216_341_187 + 256


@pytest.mark.parametrize("name", [
    "unet_ca_small", "unet_adagn_small",
    pytest.param("unet_ca_full", marks=pytest.mark.slow), pytest.param("unet_adagn_full", marks=pytest.mark.slow)])
def test_unet_predicts_the_published_noise(name):
    model, arrays = golden.rebuild(IDiffUNet(**golden.options(name))), golden.tensors(name)
    with torch.no_grad():
        assert distance(model(arrays["x"], arrays["t"], arrays["context"]), arrays["eps"]) < TOLERANCE
        assert distance(model(arrays["x"], arrays["t"], None), arrays["eps_no_context"]) < TOLERANCE


def test_autoencoder_has_the_published_entries():
    encoder, decoder = (golden.description(f"first_stage_{part}")["state_dict"] for part in ("encoder", "decoder"))
    assert golden.shapes(on_meta(VQAutoencoder)) == encoder | decoder


@pytest.fixture(scope="module")
def first_stage():
    return golden.rebuild(VQAutoencoder()), golden.tensors("first_stage")


def test_autoencoder_encodes_as_published(first_stage):
    model, arrays = first_stage
    with torch.no_grad():
        assert distance(model.encode(arrays["image"]), arrays["encoded"]) < TOLERANCE


def test_autoencoder_snaps_and_decodes_as_published(first_stage):
    model, arrays = first_stage
    with torch.no_grad():
        quantized, indices = model.quantize(arrays["latent"])
        assert torch.equal(indices.flatten(), arrays["indices"])
        assert distance(quantized, arrays["quantized"]) < TOLERANCE
        assert distance(model.decode(arrays["latent"]), arrays["decoded"]) < TOLERANCE


@pytest.mark.parametrize("name", ["iresnet50", "iresnet100"])
def test_backbone_has_the_published_entries(name):
    described = golden.description(name)
    model = on_meta(registry.load("model", name))
    assert golden.shapes(model) == described["state_dict"]
    assert parameters(model) == described["parameters"]


@pytest.mark.parametrize("name", ["iresnet50", pytest.param("iresnet100", marks=pytest.mark.slow)])
def test_backbone_gives_the_published_embedding(name):
    model, arrays = golden.rebuild(getattr(backbones, name)()), golden.tensors(name)
    with torch.no_grad():
        assert distance(model(arrays["x"]), arrays["embedding"]) < TOLERANCE

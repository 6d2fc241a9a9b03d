"""Released key layouts: prefixes, wrappers and configurations as published; what does not fit is named."""

import golden_networks as golden
import pytest
import torch

from negface.foundation.errors import FormatError, InputError
from negface.models import IDiffUNet, VQAutoencoder, published

WHERE = "model.ckpt"
BETAS = torch.linspace(1e-4, 0.02, 1000)
SMALL = {"initial_channels": 32, "channel_multipliers": (1, 2), "is_attention": (False, True),
         "blocks_per_resolution": 1, "context_input": 16, "context_channels": 32, "sample_size": 8}
MODEL = {"initial_channels": 32, "channel_multipliers": [1, 2], "is_attention": [False, True], "attention_heads": -1,
         "attention_head_channels": 32, "n_blocks_per_resolution": 1, "condition_type": "CA",
         "is_context_conditional": True, "n_context_classes": 0, "context_input_channels": 16, "context_channels": 32}


@pytest.fixture(scope="module")
def weights():
    return golden.rebuild(IDiffUNet(**SMALL)).state_dict()


def empty(name):
    """The published entries of a network, without memory."""
    shapes = golden.description(name)["state_dict"]
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


@pytest.mark.parametrize("prefix", ["", "eps_model.", "module.eps_model.", "eps_model.module.", "module."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict"])
def test_prefixes_and_wrappers_come_off(weights, prefix, wrapper):
    found = {prefix + key: value for key, value in weights.items()}
    state, buffers = published.denoiser_state({wrapper: found, "epoch": 3} if wrapper else found, WHERE)
    assert state.keys() == weights.keys()
    assert buffers == {}


def test_schedule_buffers_are_set_apart_and_the_empty_context_gets_its_name(weights):
    parts = dict.fromkeys(published.SCHEDULE_BUFFERS, BETAS)
    found = {**parts, "eps_model.empty_context_embedding": torch.ones(32),
             **{f"eps_model.{key}": value for key, value in weights.items()}}
    state, buffers = published.denoiser_state(found, WHERE)
    assert set(buffers) == published.SCHEDULE_BUFFERS
    assert set(state) - set(weights) == {"empty_context"}
    published.load_strictly(IDiffUNet(**SMALL, learned_null=True), state, WHERE)


@pytest.mark.parametrize(("name", "extra"), [("unet_ca_full", {}), ("unet_adagn_full", {}), ("unet_ca_full", {
    "empty_context_embedding": torch.empty(256, device="meta")})], ids=["CA", "AdaGN", "CA with learned null"])
def test_full_size_denoisers_have_no_missing_and_no_unexpected_key(name, extra):
    released = {f"eps_model.{key}": value for key, value in {**empty(name), **extra}.items()}
    state, _ = published.denoiser_state(released, WHERE)
    config = golden.options(name)
    with torch.device("meta"):
        network = IDiffUNet(**config, learned_null=bool(extra))
    assert {key: value.shape for key, value in state.items()} == {
        key: value.shape for key, value in network.state_dict().items()}


def test_full_size_first_stage_is_recognised_from_its_halves():
    state = {}
    for half in ("first_stage_encoder", "first_stage_decoder"):
        state.update(published.autoencoder_state(empty(half), half))
    config = published.autoencoder_config(state, 128, WHERE)
    assert config == {"image_size": 128, "latent_channels": 3, "channels": 128, "blocks": 2, "multipliers": (1, 2, 4),
                      "codebook_size": 8192}


def test_first_stage_comes_out_of_a_whole_latent_diffusion_checkpoint():
    vae = VQAutoencoder(image_size=16, channels=32, multipliers=(1, 2), blocks=1, codebook_size=8)
    state = vae.state_dict()
    within = {"state_dict": {**{f"first_stage_model.{key}": value for key, value in state.items()},
                             "model.diffusion_model.out.0.weight": torch.ones(1), "betas": BETAS}}
    alone = {"state_dict": {**state, "loss.perceptual_loss.lin0.weight": torch.ones(1)}}
    for found in (within, alone):
        assert published.autoencoder_state(found, WHERE).keys() == state.keys()


@pytest.mark.parametrize("depth", [50, 100])
def test_depth_of_a_backbone_is_read_from_its_keys(depth):
    released = {f"module.{key}": value for key, value in empty(f"iresnet{depth}").items()}
    state, architecture = published.backbone_state(released, WHERE)
    assert architecture == f"iresnet{depth}"
    assert len(state) == golden.description(f"iresnet{depth}")["entries"]


def test_header_is_no_backbone():
    with pytest.raises(FormatError, match=r"model\.ckpt.*first key 'kernel'.*iresnet50"):
        published.backbone_state({"kernel": torch.ones(512, 10)}, WHERE)


def faults(state):
    key = "middle.res1.conv1.weight"
    first = next(iter(state))
    return {
        "missing": ({k: v for k, v in state.items() if k != key}, rf"lacks 1 of \d+ entries.*'{key}' \(float32 \[64, "),
        "half": (dict(list(state.items())[:len(state) // 2]), r"lacks \d+ of \d+ entries"),
        "unknown": ({**state, "extra.weight": torch.ones(2)}, r"1 entries the network does not.*'extra.weight'"),
        "shape": ({**state, key: torch.ones(64, 32, 3, 3)}, rf"'{key}' is float32 \[64, 32, 3, 3\], expected float32 "),
        "dtype": ({**state, key: state[key].half()}, rf"'{key}' is float16 .*expected float32"),
        "NaN": ({**state, key: torch.full_like(state[key], torch.nan)}, rf"'{key}' holds NaN"),
        "mixed prefix": ({**state, f"eps_model.{first}": state[first]}, "mixes keys with and without 'eps_model.'"),
        "mixed module": ({**state, f"module.{first}": state[first]}, "mixes keys with and without 'module.'"),
        "not a tensor": ({**state, key: [1.0]}, rf"entry '{key}' is list"),
        "no dict": ([1], "holds list"),
        "nothing": ({}, "holds dict"),
    }


@pytest.mark.parametrize("fault", ["missing", "half", "unknown", "shape", "dtype", "NaN", "mixed prefix",
                                   "mixed module", "not a tensor", "no dict", "nothing"])
def test_what_does_not_fit_is_named_with_file_key_and_expectation(weights, fault):
    found, words = faults(weights)[fault]
    network = IDiffUNet(**SMALL)
    before = network.image_proj.weight.clone()
    with pytest.raises(FormatError, match=rf"model\.ckpt.*{words}"):
        published.load_strictly(network, published.denoiser_state(found, WHERE)[0], WHERE)
    assert torch.equal(network.image_proj.weight, before)


def test_order_of_the_entries_does_not_matter(weights):
    turned = dict(reversed(weights.items()))
    network = IDiffUNet(**SMALL)
    published.load_strictly(network, turned, WHERE)
    assert all(torch.equal(value, weights[key]) for key, value in network.state_dict().items())


def test_entries_that_share_memory_are_parted_so_that_they_can_be_saved(weights):
    shared = torch.randn(2, *weights["middle.res1.conv1.bias"].shape)
    tied = {**weights, "middle.res1.conv1.bias": shared[0], "middle.res2.conv1.bias": shared[1],
            "middle.res1.norm1.bias": shared[0], "middle.res2.norm1.bias": weights["middle.res2.norm1.weight"]}
    network = IDiffUNet(**SMALL)
    published.load_strictly(network, tied, WHERE)
    places = [value.untyped_storage().data_ptr() for value in network.state_dict().values()]
    assert len(set(places)) == len(places)
    assert torch.equal(network.middle.res1.norm1.bias, shared[0])


def test_released_configuration_becomes_ours():
    change = {"learn_empty_context": True, "context_dropout_probability": 0.25}
    found = published.denoiser_config({**MODEL, **change}, WHERE)
    assert found["learned_null"] is True
    assert found["context_dropout_probability"] == 0.25
    assert {key: found[key] for key in SMALL if key != "sample_size"} == {
        key: value for key, value in SMALL.items() if key != "sample_size"}


@pytest.mark.parametrize(("change", "words"), [
    ({"condition_type": "AddPlusGN"}, "AddPlusGN.*CA and AdaGN"), ({"is_context_conditional": False}, "unconditional"),
    ({"n_context_classes": 10}, "class labels"), ({"attention_head_channels": -1}, "counts attention heads"),
    ({"initial_channels": "wide"}, "initial_channels.*'wide'")])
def test_unsupported_variants_are_refused_by_name(change, words):
    with pytest.raises(InputError, match=words):
        published.denoiser_config({**MODEL, **change}, WHERE)


def test_missing_setting_is_named():
    with pytest.raises(FormatError, match=r"no model\.context_channels"):
        published.denoiser_config({key: value for key, value in MODEL.items() if key != "context_channels"}, WHERE)


def test_noise_schedule_is_read_from_the_checkpoint():
    found = published.noise_schedule({"betas": BETAS}, 1000, WHERE)
    assert (found.num_train_timesteps, found.beta_start, found.beta_end) == (1000, 1e-4, 0.02)
    assert published.noise_schedule({}, 1000, WHERE) == found
    with pytest.raises(InputError, match="not linear"):
        published.noise_schedule({"betas": BETAS**2}, 1000, WHERE)
    with pytest.raises(InputError, match="2000 timesteps"):
        published.noise_schedule({}, 2000, WHERE)

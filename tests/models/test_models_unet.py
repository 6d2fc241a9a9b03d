"""The denoiser's contract: contexts and their absence, prepared contexts, predictions, shapes, files."""

import golden_networks as golden
import pytest
import torch

from negface.foundation.errors import InputError, UnknownNameError
from negface.models import IDiffUNet, PreparedContext
from negface.models.layers import Conv3x3, attend

TINY = {"in_channels": 3, "sample_size": 8, "initial_channels": 32, "channel_multipliers": (1, 2),
        "is_attention": (False, True), "blocks_per_resolution": 1, "context_input": 16, "context_channels": 32}


def unet(**options):
    return golden.rebuild(IDiffUNet(**{**TINY, **options}))


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return draw(3, 3, 8, 8), torch.tensor([5, 400, 990]), torch.nn.functional.normalize(draw(3, 16), dim=1)


@pytest.mark.parametrize("condition_type", ["CA", "AdaGN", "CA+AdaGN"])
@torch.no_grad()
def test_prepared_context_gives_what_the_context_gives(inputs, condition_type):
    latents, timesteps, contexts = inputs
    model = unet(condition_type=condition_type)
    prepared = model.prepare_context(contexts)
    assert torch.equal(model(latents, timesteps, prepared), model(latents, timesteps, contexts))
    turned = torch.tensor([2, 0, 1])
    both = PreparedContext.cat([prepared.index(turned), prepared.index(slice(0, 1))])
    expected = model(latents[[0, 1, 2, 0]], timesteps[[0, 1, 2, 0]], contexts[[2, 0, 1, 0]])
    assert torch.equal(model(latents[[0, 1, 2, 0]], timesteps[[0, 1, 2, 0]], both), expected)


@pytest.mark.parametrize("condition_type", ["CA", "AdaGN", "CA+AdaGN"])
@torch.no_grad()
def test_no_context_zero_input_learned_null_and_context_are_four_different_inputs(inputs, condition_type):
    latents, timesteps, contexts = inputs
    model = unet(condition_type=condition_type, learned_null=True)
    kinds = [model(latents, timesteps, context) for context in (contexts, torch.zeros(3, 16), None, "learned")]
    distances = [golden.distance(a, b) for i, a in enumerate(kinds) for b in kinds[:i]]
    assert min(distances) > 1e-3


@torch.no_grad()
def test_no_context_is_zeros_after_and_zero_input_zeros_before_the_projection():
    model = unet(learned_null=True)
    assert torch.equal(model.project_context(None, 2), torch.zeros(2, 32))
    assert torch.equal(model.project_context(torch.zeros(2, 16), 2), model.context_emb.bias.expand(2, -1))
    assert torch.equal(model.project_context("learned", 2), model.empty_context.expand(2, -1))


def test_learned_null_of_a_model_without_one_is_refused(inputs):
    with pytest.raises(InputError, match="no learned empty context"):
        unet()(inputs[0], inputs[1], "learned")
    with pytest.raises(UnknownNameError, match="did you mean 'learned'"):
        unet(learned_null=True)(inputs[0], inputs[1], "learnt")


@torch.no_grad()
def test_one_timestep_serves_all_images(inputs):
    latents, _, contexts = inputs
    model = unet()
    assert torch.equal(model(latents, 7, contexts), model(latents, torch.tensor([7, 7, 7]), contexts))


@torch.no_grad()
def test_images_of_a_batch_do_not_see_each_other(inputs):
    latents, timesteps, contexts = inputs
    model = unet()
    alone = model(latents[1:2], timesteps[1:2], contexts[1:2])
    assert golden.distance(model(latents, timesteps, contexts)[1:2], alone) < 1e-5


@torch.no_grad()
def test_velocity_is_turned_into_the_noise_it_stands_for():
    """x = αx0 + σε and v = αε − σx0 give back ε, whatever the network's answer was."""
    model = unet(prediction_type="v_prediction")
    generator = torch.Generator().manual_seed(2)
    clean, noise = torch.randn(2, 2, 3, 8, 8, generator=generator)
    timesteps = torch.tensor([30, 900])
    alpha_bar = torch.linspace(1 - 1e-4, 1 - 0.02, 1000, dtype=torch.float64).cumprod(0)[timesteps][:, None, None, None]
    signal, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    noisy, velocity = signal * clean + sigma * noise, signal * noise - sigma * clean
    assert golden.distance(model.to_noise(velocity.float(), noisy.float(), timesteps), noise) < 1e-5


@torch.no_grad()
def test_velocity_network_answers_with_noise(inputs):
    latents, timesteps, contexts = inputs
    model = unet(prediction_type="v_prediction")
    raw = model.raw(latents, timesteps, model.prepare_context(contexts))
    assert torch.equal(model(latents, timesteps, contexts), model.to_noise(raw, latents, timesteps))
    assert golden.distance(model(latents, timesteps, contexts), raw) > 1e-2
    assert torch.equal(unet()(latents, timesteps, contexts), raw)


def test_attention_of_training_is_the_fused_one():
    """On a CPU training takes matrix products, sampling the fused kernel: one function."""
    query, keys, values = torch.randn(3, 2, 4, 9, 8, generator=torch.Generator().manual_seed(3)).unbind()
    with torch.no_grad():
        fused = attend(query, keys, values)
    plain = attend(query.requires_grad_(), keys, values)
    assert plain.requires_grad
    assert golden.distance(plain.detach(), fused) < 1e-5


@pytest.mark.parametrize("sides", [(1, 1), (2, 3), (4, 4)])
def test_convolution_of_a_small_map_is_the_same_as_products_of_its_rows(sides):
    """Products where a CPU predicts on channels-last values, the library's convolution where it trains."""
    conv = golden.rebuild(Conv3x3(512, 256)).to(memory_format=torch.channels_last)
    hidden = torch.randn(3, 512, *sides, generator=torch.Generator().manual_seed(4))
    hidden = hidden.contiguous(memory_format=torch.channels_last)
    trained = conv(hidden)
    with torch.no_grad():
        predicted = conv(hidden)
        plain = torch.nn.functional.conv2d(hidden, conv.weight, conv.bias, padding=1)
        with torch.autocast("cpu", torch.bfloat16):
            assert conv(hidden).dtype == torch.bfloat16
    assert trained.requires_grad
    assert torch.equal(trained.detach(), plain)
    assert predicted.is_contiguous(memory_format=torch.channels_last)
    assert golden.distance(predicted, plain) < 1e-5


def test_prediction_of_channels_last_values_is_the_one_of_training(inputs):
    latents, timesteps, contexts = inputs
    model = unet(channel_multipliers=(4, 4), condition_type="CA").to(memory_format=torch.channels_last)
    latents = latents[:, :, :8, :8].contiguous(memory_format=torch.channels_last)
    trained = model(latents, timesteps, contexts)
    with torch.inference_mode():
        assert golden.distance(model(latents, timesteps, contexts), trained.detach()) < 1e-5


@pytest.mark.parametrize(("change", "what"), [
    ({"latents": (3, 4, 8, 8)}, r"latents: .*\(3, 4, 8, 8\), expected \[n, 3, h, w\]"),
    ({"latents": (3, 8, 8)}, r"expected \[n, 3, h, w\]"),
    ({"latents": (3, 3, 7, 8)}, r"latents: sides \(7, 8\) are not multiples of 2"),
    ({"contexts": (3, 15)}, r"context: .*\(3, 15\), the model takes \[n, 16\]"),
    ({"contexts": (16,)}, r"the model takes \[n, 16\]"),
    ({"contexts": (2, 16)}, "2 contexts for 3 latents"),
    ({"timesteps": (2,)}, r"timesteps: .*\(2,\), expected one or \[3\]")])
def test_wrong_shapes_are_named(change, what):
    shapes = {"latents": (3, 3, 8, 8), "timesteps": (3,), "contexts": (3, 16), **change}
    timesteps = torch.zeros(shapes["timesteps"], dtype=torch.long)
    with pytest.raises(InputError, match=what):
        unet()(torch.zeros(shapes["latents"]), timesteps, torch.zeros(shapes["contexts"]))


@pytest.mark.parametrize(("options", "what"), [
    ({"is_attention": (True,)}, "2 channel multipliers for 1 attention flags"),
    ({"initial_channels": 48}, "multiples of 32"),
    ({"head_channels": 24}, "head_channels 24 does not divide"),
    ({"group_channels": 24}, "group_channels 24 does not divide"),
    ({"condition_type": "ca"}, "unknown condition type 'ca'"),
    ({"prediction_type": "v-prediction"}, "did you mean 'v_prediction'")])
def test_impossible_networks_are_refused(options, what):
    with pytest.raises(InputError, match=what):
        IDiffUNet(**{**TINY, **options})


def test_a_saved_unet_comes_back_with_all_its_settings(tmp_path, inputs):
    latents, timesteps, contexts = inputs
    model = unet(learned_null=True, conditioner={"name": "a", "hash": "b" * 64}, prediction_type="v_prediction",
                 group_channels=16)
    model.save_pretrained(tmp_path)
    back = IDiffUNet.from_pretrained(tmp_path).eval()
    settings = {key for key in model.config if not key.startswith("_")}
    assert {key: _plain(back.config[key]) for key in settings} == {key: _plain(model.config[key]) for key in settings}
    assert back.has_learned_null
    with torch.no_grad():
        assert torch.equal(back(latents, timesteps, contexts), model(latents, timesteps, contexts))


def _plain(value):
    return list(value) if isinstance(value, tuple) else value


def test_group_channels_set_the_width_of_a_group_and_add_no_entry():
    published, grouped = IDiffUNet(**TINY), IDiffUNet(**TINY, group_channels=16)
    assert golden.shapes(published) == golden.shapes(grouped)
    assert (published.norm.num_groups, grouped.norm.num_groups) == (32, 2)


def test_a_fresh_network_predicts_zero_noise(inputs):
    """Zero-initialised last layers: training starts from the mean prediction, as published."""
    with torch.no_grad():
        assert not IDiffUNet(**TINY)(*inputs).any()


def test_attention_blocks_are_listed_in_the_order_they_run(inputs):
    model, seen = unet(), []
    for block in model.attention_blocks():
        block.register_forward_hook(lambda module, *_: seen.append(module))
    with torch.no_grad():
        model(*inputs)
    assert len(seen) == 4
    assert all(a is b for a, b in zip(seen, model.attention_blocks(), strict=True))

"""What the pipeline does not compute twice: each saving against the plain path, which computes everything anew."""

import pytest
import torch
from tiny_pipeline import pipeline, unet, unit

from negface.foundation.errors import InputError
from negface.models import layers
from negface.pipelines import NegFaceDiffPipeline
from negface.sampling import guidance

KINDS = ["CA", "AdaGN", "CA+AdaGN"]
STEPS = 4


def denoiser(kind, **options):
    attention = {"is_attention": (True, True)} if kind == "both levels" else {}
    return unet(condition_type="CA" if kind == "both levels" else kind, learned_null=True, **attention, **options)


def plain(model, latents, wanted, negative, w, steps=STEPS):
    """One pass a branch, contexts and timesteps given raw: nothing prepared, nothing shared."""
    solver = NegFaceDiffPipeline(model).scheduler.build("ddim").start(steps)
    with torch.no_grad():
        for index, t in enumerate(solver.timesteps):
            e, other = (model(latents, torch.full((len(latents),), t), context) for context in (wanted, negative))
            latents = solver.step(index, e + w * (e - other), latents, None)
    return latents


def far(a, b):
    return float((a - b).abs().max() / b.abs().max())


def latents(n=3, seed=0):
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", [*KINDS, "both levels"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_pipeline_equals_the_plain_path_that_computes_everything_at_every_step(kind, prediction):
    model, x = denoiser(kind, prediction_type=prediction), latents()
    ours = NegFaceDiffPipeline(model)(unit(3), unit(3, 1), guidance.constant(0.5), STEPS, latents=x, scheduler="ddim",
                                      output_type="latent").images
    expected = plain(model, x, unit(3), unit(3, 1), 0.5)
    assert far(ours, expected) < 1e-5
    assert far(plain(model, x, unit(3), unit(3, 2), 0.5), expected) > 1e-4


@pytest.mark.parametrize("kind", [*KINDS, "both levels"])
def test_what_comes_before_the_context_is_computed_once_for_all_branches(kind):
    model = denoiser(kind)
    with torch.no_grad():
        parts = [model.prepare_context(unit(3, seed)) for seed in (0, 1)] + [model.prepare_context("learned", 3)]
        apart = torch.cat([model(latents(), 300, part) for part in parts])
        rows = {}
        hooks = [getattr(model, name).register_forward_hook(lambda _, a, out, name=name: rows.update({name: len(out)}))
                 for name in ("image_proj", "final")]
        together = model(latents(), 300, type(parts[0]).cat(parts), branches=3)
    for hook in hooks:
        hook.remove()
    assert far(together, apart) < 1e-5
    assert rows == {"image_proj": 3, "final": 9}
    assert far(together[:3], together[3:6]) > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_prepared_time_is_the_time(kind):
    model = denoiser(kind)
    with torch.no_grad():
        times, context = model.prepare_times((999, 300, 0)), model.prepare_context(unit(3))
        for t in (999, 300, 0):
            assert far(model(latents(), times.at(t), context), model(latents(), t, unit(3))) < 1e-5
        with pytest.raises(ValueError):
            times.at(5)


def test_time_is_embedded_once_a_schedule_and_contexts_once_a_call(monkeypatch):
    pipe, calls = pipeline(), {"time": 0, "keys": 0}
    block = pipe.unet.attention_blocks()[0]
    keys = block.context_keys_values

    def counted(*arguments):
        calls["keys"] += 1
        return keys(*arguments)

    monkeypatch.setattr(block, "context_keys_values", counted)
    hook = pipe.unet.time_emb.register_forward_hook(lambda *a: calls.update(time=calls["time"] + 1))
    pipe(unit(3), unit(3, 1), num_inference_steps=6, output_type="latent")
    hook.remove()
    assert calls == {"time": 1, "keys": 2}


def test_pictures_of_one_person_share_its_prepared_context(monkeypatch):
    pipe, projected = pipeline(), []
    prepare = pipe.unet.prepare_context
    monkeypatch.setattr(pipe.unet, "prepare_context", lambda context, *rest: projected.append(len(context)) or
                        prepare(context, *rest))
    wanted, negatives = unit(2)[[0, 1, 1, 0, 1]], unit(2, 1)[[0, 1, 1, 0, 1]]
    seeds = [(0, "a", image) for image in range(5)]
    together = pipe(wanted, negatives, num_inference_steps=3, seeds=seeds, output_type="latent").images
    assert projected == [2, 2]
    alone = torch.cat([torch.as_tensor(pipe(wanted[i:i + 1], negatives[i:i + 1], num_inference_steps=3,
                                            seeds=seeds[i:i + 1], output_type="latent").images) for i in range(5)])
    assert far(torch.as_tensor(together), alone) < 1e-5


def test_context_prepared_while_training_still_counts_at_a_prepared_time():
    model = denoiser("AdaGN")
    with torch.no_grad():
        bare = model.training_context(unit(2))
        assert far(model(latents(2), model.prepare_times((300,)).at(300), bare),
                   model(latents(2), 300, unit(2))) < 1e-5


def test_contexts_that_are_no_multiple_are_refused():
    model = denoiser("CA")
    with pytest.raises(InputError, match="2 contexts for 6 latents"):
        model(latents(), 300, unit(2), branches=2)
    with pytest.raises(InputError, match="6 contexts for 3 latents"):
        model(latents(), 300, unit(6))


def test_fused_attention_is_softmax_of_products():
    query, keys, values = (torch.randn(2, 4, n, 8, generator=torch.Generator().manual_seed(n)) for n in (9, 5, 5))
    scores = torch.einsum("nhqc,nhkc->nhqk", query, keys) * 8**-0.5
    expected = torch.einsum("nhqk,nhkc->nhqc", scores.softmax(-1), values)
    assert far(layers.attend(query, keys, values), expected) < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_channels_last_changes_the_layout_and_not_the_prediction(kind):
    model = denoiser(kind)
    with torch.no_grad():
        expected = model(latents(), 300, unit(3))
        ours = model.to(memory_format=torch.channels_last)(latents(), 300, unit(3))
    assert far(ours, expected) < 1e-5


def test_a_pipeline_that_has_sampled_is_saved_and_loaded_as_before(tmp_path):
    pipe = pipeline()
    expected = pipe(unit(2), unit(2, 1), num_inference_steps=2, output_type="latent").images
    pipe.save_pretrained(tmp_path / "model")
    again = NegFaceDiffPipeline.from_pretrained(tmp_path / "model")
    assert torch.equal(again(unit(2), unit(2, 1), num_inference_steps=2, output_type="latent").images, expected)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_compiled_denoiser_gives_the_same_image():
    pipe = pipeline()
    expected = pipe(unit(2), unit(2, 1), num_inference_steps=2, output_type="latent").images
    pipe.unet.compile()
    assert far(pipe(unit(2), unit(2, 1), num_inference_steps=2, output_type="latent").images, expected) < 1e-5


def test_float32_convolutions_are_not_rounded_to_tf32_while_sampling():
    pipe, seen = pipeline(), []
    pipe.unet.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    before = torch.backends.cudnn.allow_tf32
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
        pipe(unit(2), num_inference_steps=2, output_type="latent")
        assert torch.backends.cudnn.allow_tf32
    assert seen
    assert not any(seen)
    assert torch.backends.cudnn.allow_tf32 == before


def test_bfloat16_stays_close_to_float32_and_is_not_it():
    pipe = pipeline()
    options = {"num_inference_steps": STEPS, "output_type": "latent", "scheduler": "ddim"}
    full = pipe(unit(3), unit(3, 1), **options).images
    half = pipe(unit(3), unit(3, 1), dtype=torch.bfloat16, **options).images
    assert half.dtype == torch.float32
    assert 1e-6 < far(half, full) < 0.1


def test_no_graph_is_kept_while_sampling():
    assert not pipeline()(unit(1), num_inference_steps=1, output_type="latent").images.requires_grad


def test_reused_direction_costs_one_prediction_between_and_stays_near_the_full_rule():
    pipe = pipeline()

    def run(rule):
        return pipe(unit(3), unit(3, 1), rule, 8, output_type="latent")

    full, reused, none = (run(rule) for rule in (guidance.constant(0.5), guidance.constant(0.5).reusing(2),
                                                 guidance.none()))
    assert (full.predictions, reused.predictions, none.predictions) == (48, 36, 24)
    assert 0 < far(reused.images, full.images) < far(none.images, full.images)
    assert reused.guidance["reuse"] == 2

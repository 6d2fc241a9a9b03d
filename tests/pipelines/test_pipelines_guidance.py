"""What guidance must mean at the pipeline: plain where it is off, classifier-free where it should be, row by row."""

import numpy as np
import pytest
import torch
from tiny_pipeline import DIM, pipeline, unit

from negface.contexts import ContextBank, Selection
from negface.sampling import guidance

STEPS, HALF = 6, guidance.constant(0.5)
SCHEDULERS = ["ddpm", "ddim", "dpmpp", "unipc"]


@pytest.fixture(scope="module")
def pipe():
    return pipeline()


@pytest.fixture(scope="module")
def draw(pipe):
    def run(context, negative=None, rule=HALF, steps=STEPS, **options):
        return pipe(context, negative, rule, steps, output_type="latent", **options).images

    return run


def far(a, b):
    return float((a - b).abs().max() / b.abs().max())


def selection(kinds, vectors):
    kinds = np.array(kinds, np.uint8)
    vectors = vectors.numpy().copy()
    vectors[kinds == 2], vectors[kinds > 2] = 0, np.nan
    return Selection(kinds, np.where(kinds == 0, 0, -1).astype(np.int64), vectors)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_weight_zero_equals_plain_sampling_bit_for_bit(draw, scheduler):
    plain = draw(unit(3), scheduler=scheduler)
    assert torch.equal(draw(unit(3), unit(3, 1), guidance.constant(0.0), scheduler=scheduler), plain)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_negative_equal_to_positive_changes_nothing(draw, scheduler):
    plain = draw(unit(3), scheduler=scheduler)
    assert far(draw(unit(3), unit(3), guidance.constant(0.5), scheduler=scheduler), plain) < 1e-5


def test_a_negative_changes_the_image(draw):
    assert far(draw(unit(3), unit(3, 1)), draw(unit(3))) > 1e-3


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_learned_null_is_classifier_free_guidance_with_scale_one_plus_w(pipe, draw, scheduler):
    w, context = 0.7, unit(2)
    chosen = pipe.scheduler.build(scheduler)
    solver, noise = chosen.start(STEPS), {t: torch.full((2, 3, 8, 8), t / 1000) for t in range(1000)}.__getitem__
    x = start = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for index, t in enumerate(solver.timesteps):
            null, wanted = pipe.unet(x, t, "learned"), pipe.unet(x, t, context)
            x = solver.step(index, null + (1 + w) * (wanted - null), x, noise)
    ours = draw(context, "null-learned", guidance.constant(w), latents=start, noise=noise, scheduler=scheduler)
    assert far(ours, x) < 1e-4


def test_null_branch_of_a_rule_is_the_learned_null(draw):
    assert torch.equal(draw(unit(2), None, guidance.constant(0.5, branch="null")), draw(unit(2), "null-learned"))


def test_each_row_of_a_mixed_selection_is_steered_by_its_kind(draw):
    context, vectors = unit(5), unit(5, 1)
    mixed = draw(context, selection([0, 1, 2, 3, 4], vectors))
    alone = [draw(context[:1], vectors[:1], seeds=[0]), draw(context[1:2], vectors[1:2], seeds=[1]),
             draw(context[2:3], torch.zeros(1, DIM), seeds=[2]), draw(context[3:4], "null-learned", seeds=[3]),
             draw(context[4:], None, seeds=[4])]
    assert far(mixed, torch.cat(alone)) < 1e-4
    assert min(far(a, draw(context[i:i + 1], None, seeds=[i])) for i, a in enumerate(alone[:4])) > 1e-4


@pytest.mark.parametrize("scheduler", ["dpmpp", "unipc"])
def test_row_without_negative_is_plain_even_where_its_neighbours_restart(draw, scheduler):
    rule, context = guidance.constant(1.0).on(200, 800), unit(2)
    mixed = draw(context, selection([1, 4], unit(2, 1)), rule, steps=10, scheduler=scheduler)
    assert far(mixed[1:], draw(context[1:], seeds=[1], steps=10, scheduler=scheduler)) < 1e-5


def test_stateful_noise_is_asked_once_a_step_even_for_mixed_rows(draw):
    asked = []

    def noise(t):
        asked.append(t)
        return torch.zeros(2, 3, 8, 8)

    draw(unit(2), selection([1, 4], unit(2, 1)), noise=noise, scheduler="ddpm")
    assert len(asked) == len(set(asked)) == STEPS - 1


def test_step_of_weight_zero_costs_one_prediction(pipe):
    rule = guidance.constant(0.5).on(200, 800)
    inside = sum(200 <= t <= 800 for t in pipe.scheduler.build().timesteps(10))
    out = pipe(unit(3), unit(3, 1), rule, 10, output_type="latent")
    assert out.predictions == 3 * (10 + inside)
    assert pipe(unit(3), None, rule, 10, output_type="latent").predictions == 30
    assert pipe(unit(3), selection([1, 4, 4], unit(3, 1)), HALF, 10, output_type="latent").predictions == 40


def test_branches_share_one_network_call_a_step(pipe, monkeypatch):
    calls, forward = [], pipe.unet.forward
    monkeypatch.setattr(pipe.unet, "forward", lambda *a, **k: calls.append(len(a[2])) or forward(*a, **k))
    pipe(unit(3), unit(3, 1), num_inference_steps=4, output_type="latent")
    assert calls == [6] * 4


def test_contexts_are_prepared_once_a_call(pipe, monkeypatch):
    calls, prepare = [], pipe.unet.prepare_context
    monkeypatch.setattr(pipe.unet, "prepare_context", lambda *a: calls.append(1) or prepare(*a))
    pipe(unit(3), unit(3, 1), num_inference_steps=4, output_type="latent")
    assert len(calls) == 2


def test_mean_weight_of_the_run_is_reported(pipe):
    out = pipe(unit(1), unit(1, 1), guidance.rising(1.0), 20, output_type="latent")
    assert out.mean_weight == pytest.approx(0.476)
    assert pipe(unit(1), None, guidance.rising(1.0), 2, output_type="latent").mean_weight == 0.0


@pytest.mark.parametrize("scheduler", ["ddpm", "dpmpp"])
def test_image_does_not_depend_on_its_batch(draw, scheduler):
    together = draw(unit(5), unit(5, 1), seeds=range(5), scheduler=scheduler)
    apart = [draw(unit(5)[i:i + 1], unit(5, 1)[i:i + 1], seeds=[i], scheduler=scheduler) for i in range(5)]
    assert far(together, torch.cat(apart)) < 1e-4


def test_bank_is_accepted_as_contexts(draw):
    bank = ContextBank.from_vectors(unit(2).numpy())
    assert torch.equal(draw(bank), draw(unit(2)))

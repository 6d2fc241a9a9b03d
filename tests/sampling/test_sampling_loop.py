"""The loop on analytic denoisers: closed-form shifts, orders of convergence, restarts, cost of a step."""

import numpy as np
import pytest
import torch
from analytic_denoisers import gaussian_flow, gaussian_noise, mixture_noise, start

from negface.sampling import guidance, schedulers
from negface.sampling.loop import sample, trajectory
from negface.sampling.multistep import MultistepSolver

POSITIVE, NEGATIVE, STD = 0.8, -0.5, 0.6
ORDER = {"ddim": 1, "dpmpp": 2, "unipc": 2}


def two_gaussians(latents, t, branches):
    means = {"positive": POSITIVE, "negative": NEGATIVE}
    return {branch: gaussian_noise(latents, t, means[branch], STD) for branch in branches}


def two_mixtures(latents, t, branches):
    means = {"positive": (-1.0, 0.7), "negative": (-0.6, 1.5)}
    return {branch: mixture_noise(latents, t, means[branch], 0.5) for branch in branches}


def state_at_199(name, steps, rule, predict=two_mixtures):
    """The latents on arrival at timestep 199, which every run of a multiple of five steps visits."""
    scheduler = schedulers.make(name)
    arrival = scheduler.timesteps(steps).index(199)
    for index, (_, latents) in enumerate(trajectory(predict, scheduler, rule, start(), steps)):
        if index + 1 == arrival:
            return latents.double()
    raise AssertionError


def measured_order(name, rule):
    reference = state_at_199("dpmpp", 1000, rule)
    counts = np.array([25, 50, 100])
    errors = [float((state_at_199(name, int(n), rule) - reference).abs().max()) for n in counts]
    return -np.polyfit(np.log(counts), np.log(errors), 1)[0]


@pytest.mark.parametrize("name", ["ddim", "dpmpp", "unipc"])
@pytest.mark.parametrize("rule", [guidance.none(), guidance.constant(0.5), guidance.rising(1.0)], ids=str)
def test_sampler_converges_at_its_order(name, rule):
    assert measured_order(name, rule) > ORDER[name] - 0.15


@pytest.mark.parametrize("name", ["dpmpp", "unipc"])
def test_restart_keeps_second_order_where_a_branch_appears(name, monkeypatch):
    rule = guidance.constant(2.0).on(0, 599)
    assert measured_order(name, rule) > 1.85
    reference = state_at_199("dpmpp", 1000, rule)
    with_restart = (state_at_199(name, 50, rule) - reference).abs().max()
    monkeypatch.setattr(MultistepSolver, "restart", lambda self: None)
    assert (state_at_199(name, 50, rule) - reference).abs().max() > 3 * with_restart


def test_restarted_step_is_the_first_order_step():
    x, steps, rule = start(), 10, guidance.constant(1.0).on(0, 499)
    path = list(trajectory(two_mixtures, schedulers.DPMpp(), rule, x, steps))
    at = schedulers.DPMpp().timesteps(steps).index(499)
    before = path[at - 1][1]
    e = rule.mix(two_mixtures(before, 499, rule.branches(499)), 499)
    euler = schedulers.DDIM().start(steps).step(at, e, before, None)
    assert torch.allclose(path[at][1], euler, atol=1e-5)


@pytest.mark.parametrize("name", ["ddim", "dpmpp", "unipc"])
def test_guided_shift_between_two_gaussians_matches_its_closed_form(name):
    w, x = 0.5, start()
    mean = POSITIVE + w * (POSITIVE - NEGATIVE)
    drawn = sample(two_gaussians, schedulers.make(name), guidance.constant(w), x, 1000)
    assert (drawn.double() - gaussian_flow(x, 999, mean, STD)).abs().max() < 5e-3
    plain = sample(two_gaussians, schedulers.make(name), guidance.none(), x, 1000)
    shift = gaussian_flow(x, 999, mean, STD) - gaussian_flow(x, 999, POSITIVE, STD)
    assert (drawn - plain - shift).abs().max() < 5e-3


def test_ddpm_draws_the_shifted_gaussian():
    n = 4000
    generator = torch.Generator().manual_seed(0)

    def draw(t=None):
        return torch.randn(n, 1, 1, 1, generator=generator, dtype=torch.float64)

    drawn = sample(two_gaussians, schedulers.DDPM(), guidance.constant(0.5), draw(), 250, draw)
    assert drawn.mean() == pytest.approx(POSITIVE + 0.5 * (POSITIVE - NEGATIVE), abs=4 * STD / n**0.5)
    assert drawn.std() == pytest.approx(STD, rel=0.04)


@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpmpp", "unipc"])
def test_weight_zero_is_plain_sampling_bit_for_bit(name):
    noise = {t: start(seed=t) for t in range(1000)}.__getitem__
    plain = sample(two_mixtures, schedulers.make(name), guidance.none(), start(), 20, noise)
    assert torch.equal(sample(two_mixtures, schedulers.make(name), guidance.constant(0.0), start(), 20, noise), plain)


def test_step_of_weight_zero_costs_one_prediction():
    asked = []

    def predict(latents, t, branches):
        asked.append(len(branches))
        return two_mixtures(latents, t, branches)

    sample(predict, schedulers.DPMpp(), guidance.constant(0.5).on(200, 800), start(), 20)
    inside = sum(200 <= t <= 800 for t in schedulers.DPMpp().timesteps(20))
    assert sum(asked) == 20 + inside
    assert len(asked) == 20


def reused_by_hand(scheduler, w, k, x, steps):
    """The definition, written out: every kth step sees both Gaussians mixtures, the others the last direction."""
    solver, direction = scheduler.start(steps), None
    for index, t in enumerate(solver.timesteps):
        e = two_mixtures(x, t, ("positive", "negative"))
        if index % k == 0:
            direction = e["positive"] - e["negative"]
        x = solver.step(index, e["positive"] + w * direction, x, None)
    return x


@pytest.mark.parametrize("name", ["ddim", "dpmpp", "unipc"])
@pytest.mark.parametrize("k", [2, 3])
def test_reused_direction_is_that_of_the_last_full_step(name, k):
    scheduler, rule, asked = schedulers.make(name), guidance.constant(0.5).reusing(k), []

    def predict(latents, t, branches):
        asked.append(len(branches))
        return two_mixtures(latents, t, branches)

    drawn = sample(predict, scheduler, rule, start(), 12)
    assert torch.allclose(drawn, reused_by_hand(scheduler, 0.5, k, start(), 12), atol=1e-6)
    assert sum(asked) == 12 + 12 // k
    plain = sample(two_mixtures, scheduler, guidance.constant(0.5), start(), 12)
    assert 0 < (drawn - plain).abs().max() < 0.25 * (plain - sample(
        two_mixtures, scheduler, guidance.none(), start(), 12)).abs().max()


@pytest.mark.parametrize("name", ["ddim", "dpmpp"])
def test_reuse_converges_to_the_full_rule(name):
    reference = state_at_199("dpmpp", 1000, guidance.constant(0.5))
    errors = [float((state_at_199(name, n, guidance.constant(0.5).reusing(2)) - reference).abs().max())
              for n in (50, 200)]
    assert errors[1] < errors[0] / 3

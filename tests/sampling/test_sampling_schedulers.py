"""Schedulers against diffusers' with a deterministic dummy model, their switches, spacings and descriptions."""

import json

import diffusers
import numpy as np
import pytest
import torch

from negface.foundation.errors import InputError, UnknownNameError
from negface.sampling import guidance, schedulers
from negface.sampling.loop import sample
from negface.sampling.schedule import NoiseSchedule, spaced_timesteps
from negface.sampling.schedulers import _ends


def dummy(latents, t):
    """A smooth stand-in for a network: bounded, different at every timestep and cell."""
    return torch.tanh(latents * (0.5 + t / 2000)) + 0.1 * torch.cos(latents.flip(-1))


def run(scheduler, steps, x, noise=None):
    def predict(latents, t, branches):
        return {"positive": dummy(latents, t)}

    return sample(predict, scheduler, guidance.none(), x, steps, noise)


def oracle(inner, steps, x, draw=False):
    inner.set_timesteps(steps)
    for t in inner.timesteps:
        extra = {"generator": torch.Generator().manual_seed(int(t))} if draw else {}
        x = inner.step(dummy(x, int(t)), t, x, **extra).prev_sample
    return x


def keyed(shape):
    return lambda t: torch.randn(shape, generator=torch.Generator().manual_seed(int(t)))


@pytest.fixture
def x():
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(5))


def close(a, b, tolerance=1e-4):
    return (a - b).abs().max() <= tolerance * b.abs().max()


@pytest.mark.parametrize("steps", [5, 20, 50])
def test_ddim_equals_diffusers(x, steps):
    inner = diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing")
    assert close(run(schedulers.DDIM(), steps, x), oracle(inner, steps, x))


@pytest.mark.parametrize(("variance", "theirs"), [("posterior", "fixed_small"), ("beta", "fixed_large")])
def test_ddpm_over_all_timesteps_equals_diffusers(x, variance, theirs):
    inner = diffusers.DDPMScheduler(clip_sample=False, variance_type=theirs, timestep_spacing="trailing")
    ours = run(schedulers.DDPM(variance=variance), 1000, x, keyed(x.shape))
    assert close(ours, oracle(inner, 1000, x, draw=True), 1e-3)


def test_ddpm_over_few_timesteps_equals_diffusers(x):
    inner = diffusers.DDPMScheduler(clip_sample=False, variance_type="fixed_small", timestep_spacing="trailing")
    assert close(run(schedulers.DDPM(), 20, x, keyed(x.shape)), oracle(inner, 20, x, draw=True))


def test_clipping_equals_diffusers(x):
    inner = diffusers.DDIMScheduler(clip_sample=True, clip_sample_range=0.8, timestep_spacing="trailing")
    ours = run(schedulers.DDIM(clip_x0=0.8), 10, x)
    inner.set_timesteps(10)
    theirs = x
    for t in inner.timesteps:
        theirs = inner.step(dummy(theirs, int(t)), t, theirs, use_clipped_model_output=True).prev_sample
    assert close(ours, theirs)
    assert ours.abs().max() <= 0.8 + 1e-6


@pytest.mark.parametrize("steps", [5, 20, 50])
@pytest.mark.parametrize(("ours", "theirs"), [
    (schedulers.DPMpp(), diffusers.DPMSolverMultistepScheduler),
    (schedulers.UniPC(), diffusers.UniPCMultistepScheduler)], ids=["dpmpp", "unipc"])
def test_multistep_equals_diffusers(x, ours, theirs, steps):
    assert close(run(ours, steps, x), oracle(theirs(timestep_spacing="trailing"), steps, x))


@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpmpp", "unipc"])
@pytest.mark.parametrize("steps", [1, 61, 1000])
def test_run_takes_exactly_the_steps_asked_for_and_stays_finite(x, name, steps):
    scheduler = schedulers.make(name)
    assert len(scheduler.start(steps).timesteps) == steps
    assert torch.isfinite(run(scheduler, steps, x[:1], keyed(x[:1].shape))).all()


def test_ddim_with_eta_one_equals_ddpm_with_posterior_variance(x):
    noise = keyed(x.shape)
    assert close(run(schedulers.DDIM(eta=1.0), 25, x, noise), run(schedulers.DDPM(), 25, x, noise))


def test_signal_power_matches_the_published_end():
    bars = NoiseSchedule().alpha_bars
    assert bars[999] == pytest.approx(4.04e-5, abs=5e-8)
    assert np.allclose(bars, np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)), rtol=1e-12)
    assert NoiseSchedule().alpha_bar(-1) == 1.0


def test_released_alpha_bar_is_one_timestep_early():
    after_500 = [_ends(NoiseSchedule(), (500, 495, 490), 0, shift)[2] for shift in (1, 0)]
    assert after_500 == pytest.approx([0.08264, 0.08181], abs=1e-5)
    assert _ends(NoiseSchedule(), (5, 0), 0, 1)[2] == 1.0


def test_released_ddpm_leaves_out_the_noise_of_two_steps(x):
    asked = {1: [], 2: []}
    for left_out, timesteps in asked.items():
        def noise(t, into=timesteps):
            into.append(t)
            return torch.zeros_like(x)

        run(schedulers.DDPM(noiseless_steps=left_out), 1000, x, noise)
    assert asked[1] == list(range(999, 0, -1))
    assert asked[2] == list(range(999, 1, -1))


@pytest.mark.parametrize("spacing", ["trailing", "linspace", "leading"])
def test_spacing_visits_falling_distinct_timesteps(spacing):
    for steps in (1, 2, 7, 20, 61, 300, 999):
        timesteps = spaced_timesteps(1000, steps, spacing)
        assert len(timesteps) == steps
        assert list(timesteps) == sorted(set(timesteps), reverse=True)
        assert 0 <= timesteps[-1] <= timesteps[0] <= 999


def test_default_spacing_starts_at_pure_noise_and_released_does_not():
    assert spaced_timesteps(1000, 20)[0] == 999
    assert spaced_timesteps(1000, 200, "released")[:2] == (995, 990)
    assert spaced_timesteps(1000, 200, "released")[-1] == 0


def test_released_spacing_runs_more_steps_than_asked():
    assert len(spaced_timesteps(1000, 300, "released")) == 334


@pytest.mark.parametrize("scheduler", [*map(schedulers.make, ["ddpm", "ddim", "dpmpp", "unipc"]),
                                       schedulers.released("ddim"), schedulers.released("ddpm")])
def test_description_survives_json(scheduler):
    assert schedulers.from_dict(json.loads(json.dumps(scheduler.to_dict()))) == scheduler


def test_stochastic_scheduler_without_noise_says_so(x):
    with pytest.raises(InputError, match="no noise was given"):
        run(schedulers.DDPM(), 3, x)
    with pytest.raises(InputError, match="shape"):
        run(schedulers.DDPM(), 3, x, lambda t: torch.zeros(1))


@pytest.mark.parametrize("steps", [0, -1, 1001, 2.5])
def test_impossible_step_count_is_refused(steps):
    with pytest.raises(InputError, match="num_inference_steps"):
        schedulers.DDIM().start(steps)


def test_unknown_names_and_settings_are_refused():
    with pytest.raises(UnknownNameError, match="did you mean 'ddim'"):
        schedulers.make("dimm")
    with pytest.raises(InputError, match="setting"):
        schedulers.make("ddim", etta=1)
    with pytest.raises(UnknownNameError, match="variance"):
        schedulers.DDPM(variance="large")
    with pytest.raises(UnknownNameError, match="spacing"):
        schedulers.DDIM(spacing="even").start(5)

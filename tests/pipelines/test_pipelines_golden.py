"""The released samplers, reproduced on the released network family with rebuilt weights; switches are its quirks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_pipeline import unet

from negface.pipelines import NegFaceDiffPipeline
from negface.sampling import guidance
from negface.sampling.schedulers import DDIM, released

GOLDEN = Path(__file__).parents[1] / "golden" / "sampling_unet_ca_small.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


@pytest.fixture(scope="module")
def draw(golden):
    """``draw(scheduler, steps, w, negative)`` on the golden inputs with the golden network."""
    pipe = NegFaceDiffPipeline(unet(context_input=64, context_channels=64))

    def noise(t):
        return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1000 + t))

    def run(scheduler, steps, w, negative):
        return pipe(golden["context"], negative, guidance.constant(w), steps, latents=golden["x_T"], noise=noise,
                    scheduler=scheduler, output_type="latent").images

    return run


def distance(drawn, expected):
    return float((drawn - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(("name", "steps", "w"), [
    pytest.param("ddim200_w0", 200, 0.0, marks=pytest.mark.slow), ("ddim200_w0.5", 200, 0.5), ("ddim50_w0.5", 50, 0.5)])
def test_released_ddim_is_reproduced(golden, draw, name, steps, w):
    assert distance(draw(released("ddim"), steps, w, golden["negative"]), golden[name]) < 1e-3


@pytest.mark.slow
def test_released_ddim_with_the_zero_input_is_reproduced(golden, draw):
    drawn = draw(released("ddim"), 200, 0.5, torch.zeros_like(golden["negative"]))
    assert distance(drawn, golden["ddim200_zero_negative_w0.5"]) < 1e-3


@pytest.mark.slow
def test_released_ddpm_is_reproduced(golden, draw):
    assert distance(draw(released("ddpm"), 1000, 0.5, golden["negative"]), golden["ddpm1000_w0.5"]) < 1e-3


@pytest.mark.parametrize("scheduler", [DDIM(), DDIM(spacing="released"), DDIM(shifted_alpha_bar=True)],
                         ids=["right", "right alpha-bar", "right spacing"])
def test_right_rule_is_not_the_released_one(golden, draw, scheduler):
    assert distance(draw(scheduler, 50, 0.5, golden["negative"]), golden["ddim50_w0.5"]) > 3e-3

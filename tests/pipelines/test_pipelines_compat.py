"""``compat`` at the pipeline: the released behaviour by name, and a refusal where it could not be had."""

import numpy as np
import pytest
import torch
from tiny_pipeline import DIM, pipeline, unit

from negface.contexts import ContextBank, Selection, negatives
from negface.foundation.errors import InputError, UnknownNameError
from negface.sampling import guidance, schedulers


@pytest.fixture(scope="module")
def draw():
    pipe = pipeline()

    def run(negative=None, **options):
        return pipe(unit(2), unit(2, 1) if negative is None else negative, guidance.constant(0.5),
                    **{"num_inference_steps": 3, "output_type": "latent", **options})

    return run


def test_reference_draws_as_the_released_scheduler(draw):
    ours = draw(scheduler="ddim", compat=["reference"])
    by_hand = draw(scheduler=schedulers.released("ddim"))
    assert schedulers.from_dict(ours.scheduler) == schedulers.released("ddim")
    assert torch.equal(ours.images, by_hand.images)
    assert not torch.equal(ours.images, draw(scheduler="ddim").images)


def test_one_quirk_is_one_quirk_and_none_is_the_corrected_rule(draw):
    shifted = draw(scheduler="ddim", compat=["ddim-shifted-alpha-bar"])
    assert schedulers.from_dict(shifted.scheduler) == schedulers.DDIM(shifted_alpha_bar=True)
    assert torch.equal(draw(compat=[]).images, draw().images)


def test_released_step_count_runs_more_steps(draw):
    out = draw(scheduler="ddim", num_inference_steps=30, compat=["ddim-step-count"])
    assert out.predictions == 2 * 2 * 31


def test_null_becomes_the_zero_input(draw):
    zero = draw(np.zeros((2, DIM), np.float32)).images
    learned = Selection(np.full(2, 3, np.uint8), np.full(2, -1), np.full((2, DIM), np.nan, np.float32),
                        {"strategy": "null-learned"})
    for null in ("null-learned", learned):
        assert torch.equal(draw(null, compat=["null-is-zero-input"]).images, zero)
        assert not torch.equal(draw(null).images, zero)


def test_negatives_that_the_released_code_selects_otherwise_are_refused(draw):
    bank = ContextBank.from_vectors(unit(4).numpy())
    chosen = negatives.select(bank, "mid")
    with pytest.raises(InputError, match="mid-with-self"):
        draw(chosen.subset([0, 1]), compat=["mid-counts-self"])
    draw(negatives.select(bank, "mid-with-self").subset([0, 1]), compat=["mid-counts-self"])


def test_scheduler_of_another_kind_is_refused(draw):
    with pytest.raises(InputError, match="ddim"):
        draw(compat=["ddim-shifted-alpha-bar"])
    with pytest.raises(InputError, match="by name"):
        draw(scheduler=schedulers.DDIM(), compat=["ddim-shifted-alpha-bar"])
    with pytest.raises(UnknownNameError, match="did you mean 'reference'"):
        draw(compat=["refrence"])

"""Quirks of the released code: each is one named choice, all together are the released samplers."""

import json

import numpy as np
import pytest
import torch

from negface.contexts import ContextBank, negatives, sources
from negface.foundation.errors import InputError, UnknownNameError
from negface.sampling import compat, guidance, loop, schedulers


def scheduler_of(description):
    return schedulers.from_dict({"name": description} if isinstance(description, str) else description)


@pytest.mark.parametrize(("name", "steps"), [("ddim", 200), ("ddim", 300), ("ddpm", 1000)])
def test_reference_is_the_released_sampler(name, steps):
    description, asked = compat.resolve(["reference"]).scheduler(name, steps)
    assert scheduler_of(description) == schedulers.released(name)
    assert asked == steps


def test_no_choice_changes_nothing():
    choice = compat.resolve()
    assert choice.scheduler("dpmpp", 20) == ("dpmpp", 20)
    assert choice.scheduler(None, 20) == (None, 20)
    assert choice.negatives("mid") == "mid"


@pytest.mark.parametrize("quirk", [item for item in compat.QUIRKS if set(item.acts_on.split()) <= {"ddim", "ddpm"}
                                   and item.effect != compat.NO_CHANGE], ids=lambda item: item.name)
def test_each_scheduler_quirk_alone_changes_what_its_scheduler_does(quirk):
    """On x0 = tanh(x_t): one quirk on, the others off, is neither the corrected nor the released run."""
    name, steps = quirk.acts_on, 300 if quirk.name == "ddim-step-count" else 50

    def run(names):
        description, count = compat.resolve(names).scheduler(name, steps)
        bars = schedulers.NoiseSchedule().alpha_bars

        def predict(latents, t, branches):
            return {"positive": (latents - bars[t] ** 0.5 * torch.tanh(latents)) / (1 - bars[t]) ** 0.5}

        def noise(t):
            return torch.randn(1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(t))

        start = torch.linspace(-1, 2, 4, dtype=torch.float64)[None]
        return loop.sample(predict, scheduler_of(description), guidance.none(), start, count, noise)

    others = [item.name for item in compat.QUIRKS if item.acts_on == name and item.name != quirk.name]
    assert not torch.equal(run([quirk.name]), run([]))
    assert not torch.equal(run([*others, quirk.name]), run(others))


def test_step_count_is_the_released_one_alone_and_with_its_spacing():
    alone = compat.resolve(["ddim-step-count"]).scheduler("ddim", 300)
    assert alone == ({"name": "ddim"}, 334)
    both, asked = compat.resolve(["ddim-step-count", "ddim-leading-spacing"]).scheduler("ddim", 300)
    assert len(scheduler_of(both).timesteps(asked)) == 334
    spaced, asked = compat.resolve(["ddim-leading-spacing"]).scheduler("ddim", 300)
    assert len(scheduler_of(spaced).timesteps(asked)) == 300


def test_schedulers_the_released_code_does_not_have_are_refused():
    with pytest.raises(InputError, match=r"ddim and ddpm, not of dpmpp.*--scheduler ddim"):
        compat.resolve(["reference"]).scheduler("dpmpp", 20)
    with pytest.raises(InputError, match="1000 steps, not 50"):
        compat.resolve(["reference"]).scheduler("ddpm", 50)
    with pytest.raises(UnknownNameError, match="did you mean 'ddpm-beta-variance'"):
        compat.resolve(["ddpm-beta-varience"])


def test_negatives_are_those_of_the_released_code():
    choice = compat.resolve(["reference"])
    assert {name: choice.negatives(name) for name in ("random", "mid", "null-learned", "far", "close")} == {
        "random": "previous", "mid": "mid-with-self", "null-learned": "null-zero", "far": "far", "close": "close"}
    assert compat.resolve(["random-is-previous"]).negatives("mid") == "mid"
    assert {choice.negatives(name) for name in negatives.names()} <= set(negatives.names())


@pytest.mark.parametrize("count", [9, 10])
def test_released_mid_negative_is_the_upper_median_with_the_identity_among_its_candidates(count):
    bank = sources.uniform(count, 6, seed=3)
    cosines = bank.contexts.astype(np.float64) @ bank.contexts.T.astype(np.float64)
    chosen = negatives.select(bank, "mid-with-self").indices
    assert np.array_equal(chosen, np.argsort(cosines, axis=1)[:, count // 2])
    assert not np.array_equal(chosen, negatives.select(bank, "mid").indices)


def test_nobody_becomes_its_own_negative_even_as_released():
    bank = ContextBank.from_vectors(np.eye(2, dtype=np.float32))
    with pytest.raises(InputError, match="its own negative"):
        negatives.select(bank, "mid-with-self")


def test_list_shows_every_quirk_with_its_effect(negface):
    code, out, _ = negface("compat", "list", "--json", "-")
    listed = json.loads(out)["quirks"]
    assert code == 0
    assert [item["name"] for item in listed] == [quirk.name for quirk in compat.QUIRKS]
    assert all(item["released"] and item["corrected"] and item["effect_on_fdr"] for item in listed)
    code, out, _ = negface("compat", "list", "--acts-on", "negatives")
    assert out.count("  effect: ") == 3
    assert negface("compat", "list", "--acts-on", "faces")[0] == 2

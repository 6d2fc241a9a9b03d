"""Weight averages average: every weight has the share the paper gives it."""

import numpy as np
import pytest
import torch
from torch import nn

from negface.training.ema import WeightAverage, decay_at, power_exponent
from negface.training.recipe import EMA


def trajectory(recipe, values):
    """The average after each update of a one-number network that walks through ``values``."""
    module = nn.Linear(1, 1, bias=False).double()
    average, found = WeightAverage(module, recipe), []
    for step, value in enumerate(values, 1):
        with torch.no_grad():
            module.weight.fill_(value)
        average.update(module, step)
        found.append(float(average.module.weight))
    return np.array(found)


@pytest.mark.parametrize("sigma_rel", [0.05, 0.1, 0.25])
def test_power_average_is_the_closed_form_weighted_mean(sigma_rel):
    values = np.random.default_rng(0).standard_normal(60)
    power = power_exponent(sigma_rel) + 1
    edges = (np.arange(61) / 60) ** power
    found = trajectory(EMA(kind="power", sigma_rel=sigma_rel), values)[-1]
    assert found == pytest.approx(float(np.diff(edges) @ values), abs=1e-5)


def test_exponential_average_is_the_weighted_mean_of_its_decays():
    recipe = EMA(kind="exponential", decay=0.9)
    values = np.random.default_rng(1).standard_normal(60)
    weights = []
    for step in range(1, 61):
        decay = min(0.9, 1 - step**-0.75)
        weights = [weight * decay for weight in weights] + [1 - decay]
    assert sum(weights) == pytest.approx(1)
    assert trajectory(recipe, values)[-1] == pytest.approx(float(np.dot(weights, values)), abs=1e-5)


@pytest.mark.parametrize("recipe", [EMA(), EMA(kind="exponential", decay=0.99)])
def test_averages_lag_behind_the_weights(recipe):
    """The released average never moves from the current weights; these are means of the past."""
    found = trajectory(recipe, np.arange(1.0, 101.0))
    assert found[0] == 1
    assert 50 < found[-1] < 99


@pytest.mark.parametrize("sigma_rel", [0.05, 0.1, 0.2])
def test_relative_width_of_the_power_average_is_the_one_asked_for(sigma_rel):
    n, power = 20_000, power_exponent(sigma_rel) + 1
    share = np.diff((np.arange(n + 1) / n) ** power)
    times = (np.arange(n) + 0.5) / n
    mean = share @ times
    assert np.sqrt(share @ (times - mean) ** 2) == pytest.approx(sigma_rel, rel=1e-3)


def test_first_update_takes_the_weights_as_they_are():
    assert decay_at(EMA(), 1) == decay_at(EMA(kind="exponential"), 1) == 0


def test_average_is_fp32_frozen_and_copies_buffers():
    module = nn.BatchNorm1d(3).to(torch.bfloat16)
    average = WeightAverage(module, EMA())
    module.running_mean.fill_(2)
    average.update(module, 1)
    assert average.module.weight.dtype == torch.float32
    assert not average.module.weight.requires_grad
    assert not average.module.training
    assert average.module.running_mean.tolist() == [2, 2, 2]

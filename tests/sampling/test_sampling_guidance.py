"""Guidance rules: weights over time, what they ask for, how they mix, and that they are values."""

import json

import pytest
import torch

from negface.foundation import registry
from negface.foundation.errors import InputError, UnknownNameError
from negface.sampling import guidance
from negface.sampling.schedulers import DPMpp

RULES = [guidance.none(), guidance.constant(0.5), guidance.rising(1.0), guidance.falling(0.7).on(100, 900),
         guidance.constant(0.5).on(200, 800), guidance.constant(0.5) + guidance.rising(1.0, branch="null"),
         guidance.constant(0.5).on(200, 800).reusing(2)]


def numbers(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_constant_weight_does_not_change_over_time():
    assert [guidance.constant(0.5).weight(t) for t in (0, 1, 500, 999)] == [0.5] * 4


def test_rising_grows_while_sampling_and_falling_shrinks():
    assert guidance.rising(1.0).weight(999) == pytest.approx(0.001)
    assert guidance.rising(2.0).weight(0) == 2.0
    assert guidance.falling(2.0).weight(250) == pytest.approx(0.5)
    assert guidance.falling(1.0).weight(0) == 0.0


def test_window_is_inclusive_at_both_ends_and_windows_intersect():
    rule = guidance.constant(1.0).on(200, 800)
    assert [rule.weight(t) for t in (199, 200, 800, 801)] == [0.0, 1.0, 1.0, 0.0]
    assert guidance.constant(1.0).on(0, 600).on(300, 1000) == guidance.constant(1.0).on(300, 600)
    assert guidance.constant(1.0).on(0, 100).on(200, 300).branches(150) == ("positive",)


def test_branch_of_weight_zero_is_not_asked_for():
    assert guidance.constant(0.0).branches(500) == ("positive",)
    assert guidance.falling(1.0).branches(0) == ("positive",)
    assert guidance.constant(0.5).on(200, 800).branches(900) == ("positive",)
    assert guidance.rising(1.0).branches(999) == ("positive", "negative")
    assert (guidance.constant(1) + guidance.constant(1, branch="null")).branches(5) == ("positive", "negative", "null")


def test_all_branches_ignores_windows_in_which_nothing_acts():
    assert guidance.constant(0.5).on(300, 400).all_branches == ("positive", "negative")
    assert guidance.falling(1.0).on(0, 0).all_branches == ("positive",)


def test_mix_is_the_published_formula():
    e = {"positive": numbers(0, 2, 3), "negative": numbers(1, 2, 3)}
    mixed = guidance.constant(0.5).mix(e, 10)
    assert torch.allclose(mixed, 1.5 * e["positive"] - 0.5 * e["negative"], atol=1e-12)


def test_mix_equals_classifier_free_guidance_with_scale_one_plus_w():
    e = {"positive": numbers(0, 2, 3), "negative": numbers(1, 2, 3)}
    scale = 1 + 0.7
    expected = e["negative"] + scale * (e["positive"] - e["negative"])
    assert torch.allclose(guidance.constant(0.7).mix(e, 10), expected, atol=1e-12)


def test_mix_without_branches_returns_the_positive_itself():
    e = {"positive": numbers(0, 2, 3)}
    assert guidance.constant(0.0).mix(e, 10) is e["positive"]


def test_sum_of_rules_steers_away_from_both():
    e = {"positive": numbers(0, 4), "negative": numbers(1, 4), "null": numbers(2, 4)}
    rule = guidance.constant(0.5) + guidance.constant(2.0, branch="null")
    expected = e["positive"] + 0.5 * (e["positive"] - e["negative"]) + 2.0 * (e["positive"] - e["null"])
    assert torch.allclose(rule.mix(e, 1), expected, atol=1e-12)


def test_rising_spends_half_over_a_thousand_steps_but_less_over_twenty():
    assert guidance.rising(1.0).mean_weight(range(1000)) == pytest.approx(0.5005)
    assert guidance.rising(1.0).mean_weight(DPMpp().timesteps(20)) == pytest.approx(0.476)
    assert guidance.none().mean_weight(range(1000)) == 0.0


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_rule_survives_json_and_is_a_hashable_value(rule):
    again = guidance.from_dict(json.loads(json.dumps(rule.to_dict())))
    assert again == rule
    assert hash(again) == hash(rule)
    with pytest.raises(AttributeError):
        rule.terms = ()


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_impossible_weight_is_refused(weight):
    with pytest.raises(InputError, match="weight"):
        guidance.constant(weight)


@pytest.mark.parametrize(("low", "high"), [(-1, 10), (10, 5), (0, 1001)])
def test_impossible_window_is_refused(low, high):
    with pytest.raises(InputError, match="timesteps"):
        guidance.rising(1.0).on(low, high)


def test_names_make_rules_and_unknown_names_get_a_suggestion():
    assert guidance.make("constant", 0.5) == guidance.constant(0.5)
    assert guidance.make("none") == guidance.none()
    with pytest.raises(UnknownNameError, match="did you mean 'constant'"):
        guidance.make("constat", 0.5)
    with pytest.raises(InputError, match="needs a weight"):
        guidance.make("rising")
    with pytest.raises(InputError, match="not a guidance description"):
        guidance.from_dict({"w": 1})


@pytest.mark.parametrize("entry", [*registry.entries("guidance"), *registry.entries("scheduler")], ids=lambda e: e.name)
def test_registered_entry_loads_and_names_its_paper(entry):
    assert callable(entry.load())
    assert "arXiv" in entry.paper


def test_reuse_predicts_the_negative_at_every_kth_guided_step_of_an_unbroken_run():
    rule = guidance.constant(0.5).on(200, 700).reusing(2)
    counts = [len(asked) for asked in rule.predicted((900, 700, 600, 500, 400, 300, 100))]
    assert counts == [1, 2, 1, 2, 1, 2, 1]
    assert rule.branches(600) == ("positive", "negative")
    assert rule.without("negative").predicted((600, 500)) == (("positive",),) * 2


def test_reuse_of_one_step_and_weight_zero_change_nothing():
    timesteps = DPMpp().timesteps(20)
    assert guidance.constant(0.5).reusing(1) == guidance.constant(0.5)
    assert guidance.constant(0.0).reusing(3).predicted(timesteps) == guidance.none().predicted(timesteps)
    assert "reuse" not in guidance.constant(0.5).to_dict()


@pytest.mark.parametrize("k", [0, -1, 1.5, True])
def test_impossible_reuse_is_refused(k):
    with pytest.raises(InputError, match="whole number"):
        guidance.constant(0.5).reusing(k)


def test_rules_of_different_reuse_do_not_add():
    with pytest.raises(InputError, match="add the rules first"):
        guidance.constant(0.5) + guidance.constant(0.5, branch="null").reusing(2)

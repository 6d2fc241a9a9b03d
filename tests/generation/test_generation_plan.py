"""Plans, units, inputs and estimates."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from negface.contexts import Selection
from negface.foundation.errors import FormatError, InputError, MismatchError, UnknownNameError
from negface.generation import Inputs, Plan, Tools, estimate, make_inputs, model_hash
from negface.generation.estimates import flop_counts, predictions
from negface.generation.plan import unit_size
from negface.sampling import guidance


def test_plan_survives_json_and_keeps_its_hash(planned):
    plan, _ = planned()
    again = Plan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again == plan
    assert again.hash == plan.hash
    assert hash(again) == hash(plan)
    assert plan.differences(again) == []


def test_plan_with_a_number_that_is_not_finite_is_refused(planned):
    plan = planned()[0]
    with pytest.raises(InputError, match="model holds a number that is not finite"):  # found by make fuzz
        dataclasses.replace(plan, model={**plan.model, "scale": math.nan})


@pytest.mark.parametrize(("option", "value", "field"), [
    ("seed", 1, "seed"), ("steps", 3, "steps"), ("images", 4, "images"), ("strategy", "close", "negatives.strategy"),
    ("guidance", guidance.rising(1.0), "guidance"), ("scheduler", "ddpm", "scheduler.name"), ("batch", 5, "batch"),
    ("dtype", "bf16", "dtype"), ("size", 32, "size"), ("format", "shards", "format"), ("n", 5, "contexts.hash")])
def test_every_choice_is_part_of_the_plan(planned, option, value, field):
    plan, other = planned()[0], planned(**{option: value})[0]
    assert other.hash != plan.hash
    assert any(difference.startswith(field) for difference in plan.differences(other))


@given(identities=st.integers(1, 200), per_unit=st.integers(1, 50))
def test_units_hold_every_identity_once(identities, per_unit):
    plan = object.__new__(Plan)
    object.__setattr__(plan, "identities", tuple(map(str, range(identities))))
    object.__setattr__(plan, "identities_per_unit", per_unit)
    assert [label for unit in plan.units() for label in unit.labels] == list(range(identities))


@given(images=st.integers(1, 500), batch=st.integers(1, 200), format=st.sampled_from(["folder", "shards"]))
def test_unit_size_wastes_less_than_one_batch_in_two(images, batch, format):
    n = unit_size(images, batch, format)
    rows = n * images
    assert n >= 1
    assert rows / (math.ceil(rows / batch) * batch) > 0.5 or rows < batch


def test_default_size_is_the_template_and_none_keeps_the_models_own(planned):
    assert planned(size=None)[0].size == 112
    assert planned(size=None, align="none")[0].size is None


def test_model_hash_follows_contents_and_not_readmes(model, tmp_path):
    import shutil

    copy = shutil.copytree(model, tmp_path / "copy")
    assert model_hash(copy) == model_hash(model)
    (copy / "README.md").write_text("license: CC0")
    assert model_hash(copy) == model_hash(model)
    (copy / "unet" / "config.json").write_text("{}")
    assert model_hash(copy) != model_hash(model)


@pytest.mark.parametrize(("options", "error", "said"), [
    ({"images": 0}, InputError, "at least 1"), ({"steps": 0}, InputError, "whole number"),
    ({"size": 3}, InputError, "8 to 4096"), ({"identities": 9}, InputError, "1 to 4"),
    ({"batch": 0}, InputError, "batch"), ({"scheduler": "dpmp"}, UnknownNameError, "did you mean 'dpmpp'"),
    ({"format": "zip"}, UnknownNameError, "format"),
    ({"format": "zip", "unit_images": None}, UnknownNameError, "format"),
    ({"strategy": "farr"}, UnknownNameError, "did you mean 'far'"), ({"dtype": "fp8"}, UnknownNameError, "dtype"),
    ({"scope": "image"}, InputError, "scope"), ({"codec_name": "gif"}, UnknownNameError, "codec"),
    ({"threads": 0}, InputError, "threads"), ({"device": "toaster"}, InputError, "no device"),
    ({"device": "cuda:999"}, InputError, "not usable")])
def test_wrong_options_are_refused_before_anything_is_made(planned, options, error, said):
    with pytest.raises(error, match=said):
        planned(**options)


def test_contexts_of_another_length_are_refused(planned):
    from negface.contexts import ContextBank

    bank = ContextBank.from_vectors([[1.0, 0, 0], [0, 1, 0]])
    with pytest.raises(InputError, match="length 3, the model takes 16"):
        planned(inputs=make_inputs(bank))


def test_contexts_of_another_conditioner_are_refused_unless_allowed(planned, bank):
    inputs = make_inputs(bank(conditioner={"name": "other", "hash": "ff"}))
    with pytest.raises(MismatchError, match="other"):
        planned(inputs=inputs)
    planned(inputs=inputs, allow_conditioner_mismatch=True)


def test_negatives_of_another_count_or_bank_are_refused(bank):
    chosen = make_inputs(bank(5)).selection
    with pytest.raises(InputError, match="5 negatives for 4 contexts"):
        Inputs(bank(4), chosen, "far")
    with pytest.raises(MismatchError, match="another bank"):
        Inputs(bank(5, source="other"), chosen, "far")
    Inputs(bank(5), Selection(chosen.kind, chosen.indices, chosen.negatives), "given")


def test_learned_null_needs_a_model_that_has_one(model, planned, tmp_path):
    import shutil

    from negface.generation import make_plan

    planned(strategy="null-learned")
    copy = shutil.copytree(model, tmp_path / "copy")
    config = json.loads((copy / "unet" / "config.json").read_text())
    (copy / "unet" / "config.json").write_text(json.dumps({**config, "learned_null": False}))
    with pytest.raises(InputError, match="learned null"):
        make_plan(copy, planned(strategy="null-learned")[1])


def test_a_folder_that_is_no_model_is_refused(tmp_path, planned):
    from negface.generation import make_plan

    with pytest.raises(FormatError, match="model_index"):
        make_plan(tmp_path, planned()[1])


def test_no_negative_means_plain_sampling_with_one_prediction_a_step(planned):
    plan, inputs = planned(strategy="none", guidance=guidance.constant(2.0))
    assert plan.mean_weight == 0
    assert predictions(plan, inputs) == 12 * 2
    plan, inputs = planned(strategy="far", guidance=guidance.constant(2.0))
    assert predictions(plan, inputs) == 12 * 2 * 2


def test_identities_without_a_negative_are_counted_with_one_prediction_a_step(planned, bank):
    chosen = make_inputs(bank(4)).selection
    kind, indices, vectors = chosen.kind.copy(), chosen.indices.copy(), chosen.negatives.copy()
    kind[0], indices[0], vectors[0] = 4, -1, math.nan
    plan, inputs = planned(inputs=Inputs(bank(4), Selection(kind, indices, vectors), "given"))
    assert predictions(plan, inputs) == 3 * 2 * (3 * 2 + 1)


def test_prediction_count_is_what_the_pipeline_spends(planned, model):
    from negface.generation.batches import BatchSampler, load_pipeline

    plan, inputs = planned(steps=4, guidance=guidance.constant(1.0).on(300, 800))
    sampler, spent = BatchSampler(plan, inputs, load_pipeline(model, plan)), 0
    call = sampler.pipeline.__call__

    class Counting:
        def __call__(self, *args, **options):
            nonlocal spent
            result = call(*args, **options)
            spent += result.predictions
            return result

    sampler.pipeline = Counting()
    items = [(label, image) for label in range(4) for image in range(3)]
    for start in range(0, 12, 4):
        sampler(items[start:start + 4])
    assert spent == predictions(plan, inputs)
    assert 12 * 4 < spent < 12 * 8


def test_estimate_counts_flop_and_bytes(planned, model):
    plan, inputs = planned(images=8, steps=3)
    result = estimate(plan, inputs, Tools(model=str(model)), seconds=0.5)
    assert result["predictions"] == 4 * 8 * 3 * 2
    assert result["tflop"] * 1e12 > result["predictions"] * 1e5
    assert 32 * 600 < result["disk_bytes"] < 32 * 6000
    assert result["seconds"] > 0


def test_flop_of_a_prediction_agrees_with_a_count_by_hand(model, planned):
    import torch

    from negface.generation.batches import load_pipeline

    pipeline = load_pipeline(model, planned()[0])
    counts = flop_counts(pipeline)
    convolutions = 0

    def hook(layer, given, out):
        nonlocal convolutions
        kernel = layer.weight.shape[2] * layer.weight.shape[3]
        convolutions += 2 * out.numel() * layer.in_channels * kernel

    layers = [m for m in pipeline.vae.modules() if isinstance(m, torch.nn.Conv2d)]
    hooks = [layer.register_forward_hook(hook) for layer in layers]
    pipeline.decode(torch.zeros(1, 2, 8, 8))
    for item in hooks:
        item.remove()
    assert convolutions <= counts["decode"] < 1.5 * convolutions


def test_image_scope_draws_a_negative_for_each_image_that_does_not_depend_on_the_others(planned):
    plan, inputs = planned(n=8, strategy="random", scope="image")
    together = inputs.negatives([0, 0, 0, 1], [0, 1, 2, 0])
    alone = inputs.negatives([0], [2])
    assert alone.indices[0] == together.indices[2]
    many = inputs.negatives([3] * 40, range(40)).indices
    assert len(set(many.tolist())) > 3
    assert 3 not in many
    assert plan.negatives["scope"] == "image"


def test_what_is_not_asked_for_is_the_default_preset(model, bank):
    from negface.generation import make_inputs, make_plan
    from negface.sampling.schedule import DEFAULT, DEFAULT_STEPS

    def asked(strategy="far", **options):
        plan = make_plan(model, make_inputs(bank(4), strategy), images=3, size=16, **options)
        return plan.scheduler["name"], plan.steps, plan.guidance.get("reuse", 1)

    assert asked(reuse=None) == (DEFAULT.scheduler, DEFAULT.steps, DEFAULT.reuse)
    assert asked() == (DEFAULT.scheduler, DEFAULT.steps, 1)
    assert asked(reuse=None, steps=30) == (DEFAULT.scheduler, 30, 1)
    assert asked(reuse=None, scheduler="dpmpp") == ("dpmpp", DEFAULT_STEPS, 1)
    assert asked(reuse=2, scheduler="dpmpp") == ("dpmpp", DEFAULT_STEPS, 2)
    assert asked("none", reuse=None) == (DEFAULT.scheduler, DEFAULT.steps, 1)

"""Recipes: every fault is named with its key, before anything is written."""

import pytest
from tiny_training import autoencoder_recipe, diffusion_recipe, toml

from negface.experiments.grid import ExperimentRecipe
from negface.foundation.errors import FormatError, InputError, UnknownNameError
from negface.training.recipe import AutoencoderRecipe, DiffusionRecipe, load_recipe


def load(tmp_path, text, model=DiffusionRecipe):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return load_recipe(model, path)


def test_a_recipe_of_one_line_is_the_published_model(tmp_path):
    recipe = load(tmp_path, "train = {steps = 10}")
    assert recipe.model.context_dropout_probability == 0.25
    assert (recipe.loss_weighting, recipe.model.prediction_type, recipe.context_of) == ("uniform", "epsilon", "image")


@pytest.mark.parametrize(
    "recipe", [autoencoder_recipe(adversary={"weight": 0.5}), diffusion_recipe(context_of="mixed")],
    ids=["autoencoder", "diffusion"])
def test_a_recipe_survives_toml(tmp_path, recipe):
    text = toml(recipe.model_dump(mode="json", exclude_none=True))
    assert load(tmp_path, text, type(recipe)) == recipe


@pytest.mark.parametrize(("text", "what"), [
    ("train = {steps = 10}\nlos_weighting = 'min-snr'", "did you mean 'loss_weighting'"),
    ("train = {steps = 10, learning_rat = 1e-3}", "did you mean 'train.learning_rate'"),
    ("train = {steps = 10, ema = {sigma = 0.1}}", "did you mean 'train.ema.sigma_rel'"),
    ("train = {steps = 10}\nmodel = {head_chanels = 32}", "did you mean 'model.head_channels'")])
def test_unknown_keys_get_a_suggestion(tmp_path, text, what):
    with pytest.raises(UnknownNameError, match=what):
        load(tmp_path, text)


def test_unknown_key_of_an_optional_section_gets_a_suggestion(tmp_path):
    with pytest.raises(UnknownNameError, match=r"did you mean 'adversary\.weight'"):
        load(tmp_path, "train = {steps = 1}\nadversary = {weigth = 1.0}", AutoencoderRecipe)


@pytest.mark.parametrize(("text", "what"), [
    ("model = {}", "train: Field required"),
    ("train = {steps = -5}", r"train\.steps: .*greater than 0 \(got -5\)"),
    ("train = {steps = 'many'}", r"train\.steps: .*valid integer.*\(got 'many'\)"),
    ("train = {steps = 2.5}", r"train\.steps"),
    ("train = {steps = 10, batch = 0}", r"train\.batch"),
    ("train = {steps = 10, learning_rate = nan}", r"train\.learning_rate"),
    ("train = {steps = 10, betas = [0.9, 1.0]}", r"train\.betas\.1"),
    ("train = {steps = 10, precision = 'fp16'}", r"train\.precision: .*'bf16' or 'fp32'"),
    ("train = 3", "train: .*valid dictionary"),
    ("train = {steps = 10}\nempty_share = 1.5", "empty_share"),
    ("train = {steps = 10}\nmodel = {channel_multipliers = []}", r"model\.channel_multipliers"),
    ("train = {steps = 10}\nmodel = {channel_multipliers = [1, 0]}", r"model\.channel_multipliers\.1")])
def test_impossible_values_are_named(tmp_path, text, what):
    with pytest.raises(InputError, match=what) as caught:
        load(tmp_path, text)
    assert "recipe.toml" in str(caught.value)


def test_a_loss_that_is_not_there_is_not_promised(tmp_path):
    with pytest.raises(InputError, match="feature_weight: .*not there yet"):
        load(tmp_path, "train = {steps = 1}\nfeature_weight = 0.5", AutoencoderRecipe)


def test_broken_toml_names_the_line(tmp_path):
    with pytest.raises(FormatError, match=r"recipe\.toml: not valid TOML .*line 2"):
        load(tmp_path, "empty_share = 0.1\ntrain = {steps = \n")


def test_toml_nested_without_end_is_refused(tmp_path):
    with pytest.raises(FormatError, match="not valid TOML"):
        load(tmp_path, f"train = {'[' * 5000}")


def test_unknown_key_of_a_section_in_a_list_gets_a_suggestion(tmp_path):
    with pytest.raises(UnknownNameError, match=r"did you mean 'grid\.0\.strategies'"):
        load(tmp_path, "[[grid]]\nstrategies = { far = [0.5] }\nstrategys = 1", ExperimentRecipe)


def test_a_missing_recipe_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.toml: no such recipe"):
        load_recipe(DiffusionRecipe, tmp_path / "none.toml")


def test_recipes_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        diffusion_recipe().empty_share = 0.5

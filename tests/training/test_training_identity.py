"""Identity loss: the reader learns what latents show, the loss has its closed form, the trainer logs and caches it."""

import numpy as np
import pytest
import torch
from tiny_training import accelerator, diffusion_recipe, latents, log_rows

from negface.models import VQAutoencoder
from negface.models.latent_reader import LatentReader
from negface.training.diffusion import DiffusionTask
from negface.training.identity import identity_loss, latent_reader
from negface.training.latents import Latents
from negface.training.loop import run
from negface.training.recipe import IdentityLoss

OPTIONS = IdentityLoss(weight=0.5, start=2, share=0.5, reader_steps=120, reader_batch=8)


def people_in_latents(n=6):
    """Every person has a pattern of its own, so that a reader can tell them."""
    data = latents(n, 1)
    patterns = np.random.default_rng(5).standard_normal((n, 1, 3, 4, 4)).astype(np.float32)
    same = np.repeat(data.contexts[:, :1], 2, axis=1)
    return Latents(np.repeat(patterns, 2, axis=1), same, data.labels, data.conditioner, "people")


def test_a_trained_reader_tells_people_apart_that_an_untrained_one_does_not(tmp_path):
    data = people_in_latents()
    torch.manual_seed(0)
    untrained = LatentReader(3, 4, data.contexts.shape[2]).eval()
    trained = latent_reader(data, OPTIONS, 0, tmp_path / "reader.safetensors", lambda _: None)
    shown = torch.from_numpy(data.latents[:, 0])
    own = torch.arange(len(shown))
    assert (trained(shown) @ torch.from_numpy(data.contexts[:, 0]).T).argmax(1).equal(own)
    assert not (untrained(shown) @ torch.from_numpy(data.contexts[:, 0]).T).argmax(1).equal(own)


def test_the_reader_is_trained_once_and_again_only_for_other_data(tmp_path):
    data, said = people_in_latents(), []
    for _ in range(2):
        latent_reader(data, OPTIONS, 0, tmp_path / "reader.safetensors", said.append)
    assert len(said) == 1
    other = Latents(data.latents, data.contexts, data.labels, data.conditioner, "other people")
    latent_reader(other, OPTIONS, 0, tmp_path / "reader.safetensors", said.append)
    assert len(said) == 2


def test_the_identity_loss_is_the_signal_weighted_distance_of_the_rows_that_count():
    contexts = torch.nn.functional.normalize(torch.randn(3, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    read = torch.stack([contexts[0], -contexts[1], contexts[0]])
    signal, counted = torch.tensor([0.9, 0.5, 0.2]), torch.tensor([True, True, False])
    loss = identity_loss(lambda clean: read, torch.zeros(3, 1), contexts, signal, counted)
    assert float(loss) == pytest.approx((0.9 * 0 + 0.5 * 2) / 2, abs=1e-6)
    assert float(identity_loss(lambda clean: read, torch.zeros(3, 1), contexts, signal, ~counted & False)) == 0.0


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_one_step_reconstruction_of_a_perfect_prediction_is_the_clean_latent(prediction_type, monkeypatch):
    recipe = diffusion_recipe(model={"prediction_type": prediction_type})
    task = DiffusionTask(recipe, latents(), VQAutoencoder(image_size=16, channels=32), accelerator())
    unet, clean = task.objective.unet, torch.randn(2, 3, 4, 4)
    noise, timesteps = torch.randn(2, 3, 4, 4), torch.tensor([100, 700])
    signal, sigma = (values[timesteps][:, None, None, None] for values in (unet.signal, unet.sigma))
    perfect = noise if prediction_type == "epsilon" else signal * noise - sigma * clean
    monkeypatch.setattr(unet, "raw", lambda *_: perfect)
    loss, _, found = task.objective(clean, noise, timesteps, torch.randn(2, 16), torch.zeros(2, dtype=torch.bool))
    assert float(loss) == 0.0
    assert torch.allclose(found, clean, atol=1e-3)


def test_the_identity_loss_starts_where_the_recipe_says_and_changes_the_weights(tmp_path):
    data = people_in_latents()
    reader = latent_reader(data, OPTIONS, 0, tmp_path / "reader.safetensors", lambda _: None)
    vae = VQAutoencoder(image_size=16, channels=32)
    weights = {}
    for name, recipe in (("with", diffusion_recipe(identity=OPTIONS)), ("without", diffusion_recipe())):
        task = DiffusionTask(recipe, data, vae, accelerator(), reader)
        task.sample_sheet = lambda *_: None
        run(task, recipe.train, tmp_path / name, task.accelerator, identity={"name": name}, say=lambda _: None)
        weights[name] = task.objective.unet.context_emb.weight.detach().clone()
    rows = log_rows(tmp_path / "with")
    assert [float(row["identity"]) > 0 for row in rows] == [False, False, True, True, True, True]
    assert "identity" not in log_rows(tmp_path / "without")[0]
    assert not torch.equal(weights["with"], weights["without"])

"""Training of the denoiser: what the loss weighs, what is dropped, what reaches the null, what resumes."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_training import (
    accelerator,
    autoencoder_recipe,
    diffusion_recipe,
    embeddings,
    latents,
    log_rows,
    unit,
    vae_folder,
)

from negface import NegFaceDiffPipeline
from negface.foundation.errors import MismatchError, TrainingError
from negface.models import VQAutoencoder
from negface.training import train_autoencoder, train_diffusion
from negface.training.diffusion import DiffusionTask, loss_weights
from negface.training.loop import run


@pytest.fixture(autouse=True)
def small_sheets(monkeypatch):
    monkeypatch.setattr("negface.training.diffusion.SHEET_IMAGES", 2)
    monkeypatch.setattr("negface.training.diffusion.SHEET_STEPS", 2)


def task(train=None, *, data=None, **options):
    return DiffusionTask(diffusion_recipe(train, **options), data or latents(), None, accelerator())


def shake(module):
    """Away from the zero-initialised layers, where no gradient passes."""
    with torch.no_grad():
        for value in module.parameters():
            value.add_(0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(value.numel())))


def train(recipe, folder, tmp_path, out, **options):
    vae = tmp_path / "vae"
    if not vae.exists():
        vae_folder(vae)
    settings = {"embeddings": embeddings(), "autoencoder": vae, "say": lambda _: None, **options}
    return train_diffusion(recipe, folder, out=tmp_path / out, **settings)


def interrupt(patch, at):
    real = DiffusionTask.step

    def step(self, number, rows, rate):
        if number == at:
            raise KeyboardInterrupt
        return real(self, number, rows, rate)

    patch.setattr(DiffusionTask, "step", step)


@pytest.mark.parametrize(("prediction_type", "squared_error_of_x0"), [("epsilon", 0.0), ("v_prediction", 1.0)])
def test_min_snr_weighs_the_error_of_the_clean_latent_by_min_snr_gamma(prediction_type, squared_error_of_x0):
    """‖ε − ε̂‖² = snr‖x0 − x̂0‖² and ‖v − v̂‖² = (snr + 1)‖x0 − x̂0‖²: both recipes weigh x0 alike."""
    snr = torch.tensor([1e-3, 0.5, 5.0, 80.0, 1e4], dtype=torch.float64)
    recipe = diffusion_recipe(loss_weighting="min-snr", min_snr_gamma=5.0, model={"prediction_type": prediction_type})
    weight_of_x0 = loss_weights(snr, recipe) * (snr + squared_error_of_x0)
    assert weight_of_x0.tolist() == pytest.approx([1e-3, 0.5, 5, 5, 5])


def test_published_loss_weighs_all_timesteps_alike():
    assert loss_weights(torch.tensor([1e-3, 1.0, 1e4]), diffusion_recipe()).tolist() == [1, 1, 1]


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_loss_is_the_weighted_error_against_noise_or_velocity(prediction_type):
    """Against the same written per image; the network's velocity, told as noise, has the error of the noise."""
    objective = task(model={"prediction_type": prediction_type}, loss_weighting="min-snr").objective.eval()
    shake(objective)
    generator = torch.Generator().manual_seed(5)
    clean, noise = torch.randn(2, 3, 3, 4, 4, generator=generator)
    timesteps, contexts = torch.tensor([20, 500, 980]), torch.from_numpy(unit(3))
    with torch.no_grad():
        loss, error, _ = objective(clean, noise, timesteps, contexts, torch.zeros(3, dtype=torch.bool))
        expected = []
        alpha_bar = torch.linspace(1 - 1e-4, 1 - 0.02, 1000, dtype=torch.float64).cumprod(0)
        for i, t in enumerate(timesteps.tolist()):
            signal, sigma = float(alpha_bar[t]) ** 0.5, (1 - float(alpha_bar[t])) ** 0.5
            predicted = objective.unet((signal * clean + sigma * noise)[i : i + 1], t, contexts[i : i + 1])
            noise_error = float((predicted - noise[i]).square().mean())
            snr = signal**2 / sigma**2
            own = noise_error if prediction_type == "epsilon" else noise_error / signal**2
            assert float(error[i]) == pytest.approx(own, rel=1e-3)
            expected.append(min(snr, 5) * noise_error / snr)
    assert float(loss) == pytest.approx(np.mean(expected), rel=1e-3)


def test_partial_dropout_drops_components_in_training_only():
    unet = task(model={"context_dropout_probability": 0.5, "context_channels": 256}).objective.unet
    contexts = torch.from_numpy(unit(8))
    full = unet.project_context(contexts, 8)
    dropped = unet.train().training_context(contexts).embedding
    gone = dropped == 0
    assert 0.4 < float(gone.float().mean()) < 0.6
    assert torch.allclose(dropped[~gone], 2 * full[~gone])
    assert not torch.equal(gone[0], gone[1])
    assert torch.equal(unet.eval().training_context(contexts).embedding, full)


def test_the_null_replaces_whole_contexts_and_is_never_thinned_out():
    unet = task(model={"context_dropout_probability": 0.5}).objective.unet.train()
    shake(unet)
    empty = torch.tensor([True, False, True])
    embedding = unet.training_context(torch.from_numpy(unit(3)), empty).embedding
    assert torch.equal(embedding[empty], unet.empty_context.expand(2, -1))
    assert not torch.equal(embedding[1], unet.empty_context)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_whole_context_dropout_trains_the_null(share):
    trained = task(empty_share=share)
    shake(trained.objective.unet)
    trained.step(0, np.arange(4), 1e-3)
    gradients = [trained.objective.unet.empty_context.grad, trained.objective.unet.context_emb.weight.grad]
    assert [bool(gradient.any()) for gradient in gradients] == [share == 1.0, share == 0.0]


def test_a_model_without_a_null_is_trained_on_zeros_after_the_projection():
    unet = task(model={"learned_null": False}).objective.unet
    embedding = unet.training_context(torch.from_numpy(unit(2)), torch.tensor([True, False])).embedding
    assert not embedding[0].any()
    assert embedding[1].any()


def test_timesteps_of_a_batch_are_spread_over_the_whole_range():
    trained = task({"batch": 8})
    steps = [np.sort(trained._batch(step, np.arange(8) % 6)[2].numpy()) for step in range(50)]
    assert all(1000 / 8 - 2 < gap < 1000 / 8 + 2 for row in steps for gap in np.diff(row))
    assert {0} < set(np.concatenate(steps) // 100) <= set(range(10))


def test_pictures_and_mirror_images_come_with_their_own_contexts():
    data = latents()
    trained = task({"batch": 64}, data=data)
    rows = np.arange(64) % 6
    clean, _, _, contexts, _ = (value.numpy() for value in trained._batch(0, rows))
    mirrored = [int(np.array_equal(clean[i], data.latents[row, 1])) for i, row in enumerate(rows)]
    assert 16 < sum(mirrored) < 48
    assert all(np.array_equal(contexts[i], data.contexts[row, mirrored[i]]) for i, row in enumerate(rows))
    unflipped, *_ = task({"batch": 64}, data=data, flips=False)._batch(0, rows)
    assert np.array_equal(unflipped.numpy(), data.latents[rows, 0])


def test_context_of_the_person_is_the_normalised_mean_of_its_pictures():
    data = latents(3, 4)
    _, _, _, contexts, _ = task(data=data, context_of="person")._batch(0, np.array([0, 5, 10, 3]))
    for row, person in enumerate([0, 1, 2, 0]):
        mean = data.contexts[data.labels == person].reshape(-1, 16).mean(0)
        np.testing.assert_allclose(contexts[row].numpy(), mean / np.linalg.norm(mean), atol=1e-6)


def test_context_noise_turns_contexts_and_keeps_them_unit():
    data = latents()
    rows = np.arange(4)
    tasks = [task(data=data, flips=False, context_noise=noise) for noise in (0.0, 0.5)]
    plain, noisy = (each._batch(0, rows)[3].numpy() for each in tasks)
    np.testing.assert_allclose(np.linalg.norm(noisy, axis=1), 1, atol=1e-6)
    cosines = (plain * noisy).sum(1)
    assert ((cosines > 0.6) & (cosines < 0.99)).all()


def test_gradients_are_clipped_to_the_recipe():
    trained = task({"clip": 1e-3})
    shake(trained.objective.unet)
    losses = trained.step(0, np.arange(4), 1e-3)
    gradients = [value.grad for value in trained.objective.parameters() if value.grad is not None]
    left = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    assert losses["gradient_norm"] > 0.01
    assert float(left) == pytest.approx(1e-3, rel=1e-3)


def test_training_learns():
    """One latent, some steps: the error falls well below that of predicting nothing."""
    trained = task({"batch": 4}, data=latents(1, 1), empty_share=0.0, flips=False)
    errors = [trained.step(step, np.zeros(4, np.int64), 5e-3)["error"] for step in range(25)]
    assert errors[0] == pytest.approx(1, abs=0.2)
    assert np.mean(errors[-10:]) < 0.7


@pytest.mark.parametrize("options", [{}, {"model": {"prediction_type": "v_prediction", "condition_type": "CA+AdaGN"}}])
def test_resumed_training_repeats_the_uninterrupted_one_bit_for_bit(face_folder, tmp_path, options):
    folder, recipe = face_folder(3, 2, size=16), diffusion_recipe(**options)
    train(recipe, folder, tmp_path, "whole")
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, folder, tmp_path, "cut")
    assert train(recipe, folder, tmp_path, "cut")["resumed_at"] == 3
    assert log_rows(tmp_path / "cut") == log_rows(tmp_path / "whole")
    for file in sorted((tmp_path / "whole/checkpoint").glob("*.safetensors")):
        assert file.read_bytes() == (tmp_path / "cut/checkpoint" / file.name).read_bytes(), file.name


def test_a_trained_folder_is_a_pipeline_with_the_averaged_network_its_conditioner_and_a_sheet(face_folder, tmp_path):
    from safetensors.torch import load_file

    train(diffusion_recipe({"sample_every": 4}), face_folder(3, 2, size=16), tmp_path, "out")
    pipe = NegFaceDiffPipeline.from_pretrained(tmp_path / "out/model")
    assert pipe.unet.config.conditioner == {"name": "tiny", "hash": "c" * 64}
    average = load_file(tmp_path / "out/checkpoint/average.safetensors")
    assert all(torch.equal(value, average[key]) for key, value in pipe.unet.state_dict().items())
    images = pipe(torch.from_numpy(unit(1)), num_inference_steps=2, seeds=[0], output_type="np").images
    assert images.shape == (1, 16, 16, 3)
    for name in ("0000004", "final"):
        assert Image.open(tmp_path / f"out/samples/{name}.png").size == (3 * 16, 6 * 16)


def test_checkpoint_of_another_recipe_is_refused(face_folder, tmp_path):
    folder = face_folder(3, 2, size=16)
    train(diffusion_recipe({"steps": 1}), folder, tmp_path, "out")
    before = (tmp_path / "out/checkpoint/weights.safetensors").read_bytes()
    with pytest.raises(MismatchError, match="another recipe or other data"):
        train(diffusion_recipe({"steps": 1}, empty_share=0.5), folder, tmp_path, "out")
    assert (tmp_path / "out/checkpoint/weights.safetensors").read_bytes() == before


def test_a_latent_that_is_not_a_number_stops_training_with_its_batch_saved(tmp_path):
    data = latents()
    data.latents[3] = np.nan
    trained = task(data=data)
    with pytest.raises(TrainingError, match="loss, error, gradient_norm is not finite"):
        run(trained, trained.recipe.train, tmp_path, trained.accelerator, identity={}, say=print)
    with np.load(tmp_path / "bad-batch.npz") as saved:
        assert 3 in saved["rows"]


def test_one_process_may_train_in_bf16_and_then_in_fp32(face_folder, tmp_path):
    """accelerate keeps one precision per process; ``negface run`` trains twice."""
    folder = face_folder(3, 2, size=16)
    train_autoencoder(autoencoder_recipe({"steps": 1, "precision": "bf16"}), folder, tmp_path / "a", say=print)
    train(diffusion_recipe({"steps": 1}), folder, tmp_path, "d", autoencoder=tmp_path / "a/model")
    assert VQAutoencoder.from_pretrained(tmp_path / "d/model/vae").dtype == torch.float32
    assert accelerator("bf16").mixed_precision == "bf16"
    assert accelerator("fp32").mixed_precision == "no"


def test_bf16_weights_and_averages_stay_in_fp32(face_folder, tmp_path):
    from safetensors.torch import load_file

    train(diffusion_recipe({"steps": 2, "precision": "bf16"}), face_folder(3, 2, size=16), tmp_path, "out")
    for name in ("weights", "average"):
        kinds = {value.dtype for value in load_file(tmp_path / f"out/checkpoint/{name}.safetensors").values()}
        assert kinds == {torch.float32}

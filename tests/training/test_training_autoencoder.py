"""Training of the autoencoder: its losses, its checkpoints, its scale."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_training import accelerator, autoencoder_recipe, log_rows
from torch.nn import functional as F

from negface.models import VQAutoencoder
from negface.training import train_autoencoder
from negface.training.autoencoder import AutoencoderTask, gradient_loss

ADVERSARY = {"start": 2, "weight": 0.5, "channels": 8}


@pytest.fixture
def pictures(face):
    return np.stack([face(identity, image, 16) for identity in range(3) for image in range(2)])


def task(pictures, train=None, **options):
    return AutoencoderTask(autoencoder_recipe(train, **options), pictures, accelerator())


def train(recipe, faces, out, **options):
    return train_autoencoder(recipe, faces, out, say=lambda _: None, **options)


def interrupt(monkeypatch, at):
    real = AutoencoderTask.step

    def step(self, number, rows, rate):
        if number == at:
            raise KeyboardInterrupt
        return real(self, number, rows, rate)

    monkeypatch.setattr(AutoencoderTask, "step", step)


def test_gradient_loss_sees_edges_and_not_brightness():
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert gradient_loss(image + 0.3, image) < 1e-6
    assert gradient_loss(image.flip(3), image) > 0.1


def test_gradient_loss_is_the_mean_over_scales_of_neighbouring_differences():
    """Against loops over rows and columns, at two scales."""
    first, second = torch.rand(2, 1, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    difference, total = (first - second)[0].numpy(), 0.0
    for side in (4, 2):
        near, far = np.arange(side - 1), np.arange(1, side)
        for c, k in np.ndindex(3, side):
            total += np.abs(difference[c, far, k] - difference[c, near, k]).mean() / (3 * side)
            total += np.abs(difference[c, k, far] - difference[c, k, near]).mean() / (3 * side)
        difference = difference.reshape(3, side // 2, 2, side // 2, 2).mean((2, 4))
    assert float(gradient_loss(first, second, scales=2)) == pytest.approx(total / 2)


def test_the_codebook_starts_on_latents_of_the_pictures(pictures):
    model = task(pictures).objective.model
    tensor = torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    with torch.no_grad():
        latents = model.encode(tensor).permute(0, 2, 3, 1).reshape(-1, 3)
    codes = model.quantize.embedding.weight.detach()
    assert (codes[:, None] - latents).abs().sum(2).min(1).values.max() < 1e-5


def test_commitment_moves_latents_and_the_codebook_loss_moves_codes(pictures):
    objective = task(pictures).objective
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    _, _, parts = objective(images, torch.ones(2, dtype=torch.bool))
    encoder, codes = objective.model.quant_conv.weight, objective.model.quantize.embedding.weight
    assert torch.autograd.grad(parts["commitment"], encoder, retain_graph=True)[0].any()
    assert torch.autograd.grad(parts["commitment"], codes, retain_graph=True, allow_unused=True)[0] is None
    assert torch.autograd.grad(parts["codebook"], codes, retain_graph=True)[0].any()
    assert torch.autograd.grad(parts["codebook"], encoder, allow_unused=True)[0] is None


def test_rows_pass_the_codebook_only_where_told_and_gradients_pass_it_straight(pictures):
    objective = task(pictures).objective
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    _, reconstruction, parts = objective(images, torch.tensor([True, False]))
    with torch.no_grad():
        latents = objective.model.encode(images)
        through, around = objective.model.decode(latents), objective.model.decode(latents, requantize=False)
    assert torch.allclose(reconstruction[0], through[0], atol=1e-5)
    assert torch.allclose(reconstruction[1], around[1], atol=1e-5)
    assert torch.autograd.grad(F.l1_loss(reconstruction[:1], images[:1]), objective.model.quant_conv.weight)[0].any()
    assert parts["l1"].item() == pytest.approx((reconstruction - images).abs().mean().item(), rel=1e-5)


def test_gradients_are_clipped_to_the_recipe(pictures):
    trained = task(pictures, {"clip": 1e-3})
    losses = trained.step(0, np.arange(4), 1e-3)
    left = torch.cat([value.grad.flatten() for value in trained.objective.parameters()]).norm()
    assert losses["gradient_norm"] > 0.01
    assert float(left) == pytest.approx(1e-3, rel=1e-3)


def test_training_brings_the_loss_down_and_writes_model_sheet_and_record(face_folder, tmp_path):
    faces = face_folder(3, 2, size=20)
    result = train(autoencoder_recipe({"steps": 20, "learning_rate": 5e-3}), faces, tmp_path / "out")
    losses = [float(row["l1"]) for row in log_rows(tmp_path / "out")]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    assert (result["n_images"], result["n_identities"], result["steps"]) == (6, 3, 20)
    assert Image.open(tmp_path / "out/samples/final.png").size == (6 * 16, 2 * 16)
    assert (tmp_path / "out/training.json").exists()


def test_saved_scale_gives_training_latents_unit_variance(face_folder, tmp_path, pictures):
    train(autoencoder_recipe(), face_folder(3, 2, size=16), tmp_path / "out")
    model = VQAutoencoder.from_pretrained(tmp_path / "out/model")
    with torch.no_grad():
        latents = model.encode(torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(127.5).sub(1))
    assert float((latents * model.config.scaling_factor).std()) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("options", [{}, {"adversary": ADVERSARY, "quantized_share": 0.5}])
def test_resumed_training_repeats_the_uninterrupted_one_bit_for_bit(face_folder, tmp_path, monkeypatch, options):
    faces, recipe = face_folder(3, 2, size=16), autoencoder_recipe(**options)
    train(recipe, faces, tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, faces, tmp_path / "cut")
    assert train(recipe, faces, tmp_path / "cut")["resumed_at"] == 3
    assert log_rows(tmp_path / "cut") == log_rows(tmp_path / "whole")
    for file in sorted((tmp_path / "whole/checkpoint").glob("*.safetensors")):
        assert file.read_bytes() == (tmp_path / "cut/checkpoint" / file.name).read_bytes(), file.name


def test_the_adversary_starts_at_its_step_and_learns(pictures):
    trained = task(pictures, adversary=ADVERSARY)
    before = [value.detach().clone() for value in trained.discriminator.parameters()]
    rows = [trained.step(step, np.arange(4), 1e-3) for step in range(3)]
    assert [row["discriminator"] > 0 for row in rows] == [False, False, True]
    assert [row["adversary"] != 0 for row in rows] == [False, False, True]
    assert any(not torch.equal(a, b) for a, b in zip(before, trained.discriminator.parameters()))


def test_adaptive_weight_balances_the_two_gradients_at_the_last_layer(pictures):
    trained = task(pictures, adversary=ADVERSARY)
    _, reconstruction, parts = trained.objective(torch.rand(2, 3, 16, 16), torch.ones(2, dtype=torch.bool))
    fooled = -trained.discriminator(reconstruction).mean()
    weight = trained._adaptive_weight(parts["l1"], fooled)
    last = trained.objective.model.decoder.conv_out.weight
    l1, adversary = (torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (parts["l1"], fooled))
    assert float(weight * (adversary + 1e-4)) == pytest.approx(float(l1), rel=1e-4)


def test_the_model_saved_is_the_average_not_the_last_weights(face_folder, tmp_path):
    from safetensors.torch import load_file

    train(autoencoder_recipe(), face_folder(3, 2, size=16), tmp_path / "out")
    saved = load_file(tmp_path / "out/model/diffusion_pytorch_model.safetensors")
    average, last = (load_file(tmp_path / f"out/checkpoint/{name}.safetensors") for name in ("average", "weights"))
    assert all(torch.equal(saved[key], average[key]) for key in saved)
    assert any(not torch.equal(saved[key], last[key]) for key in saved)

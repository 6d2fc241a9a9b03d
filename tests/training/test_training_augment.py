"""Augmentation on batches against Pillow, a picture at a time."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from drawn import draw_face
from negface.training import randaugment
from negface.training.augment import augment, crop, draw, resampling

SIZE = 24


@pytest.fixture
def pictures():
    """Drawn faces, noise, a dark, a plain and a two-coloured picture: uint8 ``[8, 3, 24, 24]``."""
    rng = np.random.default_rng(0)
    made = [draw_face(person, 0, SIZE) for person in range(3)]
    made += [rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8) for _ in range(2)]
    plain, two = np.full((SIZE, SIZE, 3), 90, np.uint8), np.where(made[0] > 100, 7, 200).astype(np.uint8)
    made += [made[3] // 4 + 30, plain, two]
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).contiguous()


def enhanced(kind):
    return lambda picture, strength: kind(picture).enhance(1 + 0.9 * strength)


def moved(*coefficients):
    return lambda picture, strength: picture.transform(
        picture.size, Image.Transform.AFFINE, [value(strength) if callable(value) else value for value in coefficients])


PILLOW = {
    "identity": lambda picture, strength: picture,
    "shear-x": moved(1, lambda s: 0.3 * s, 0, 0, 1, 0),
    "translate-x": moved(1, 0, lambda s: int(150 / 331 * SIZE * s), 0, 1, 0),
    "rotate": lambda picture, strength: picture.rotate(30 * strength),
    "brightness": enhanced(ImageEnhance.Brightness),
    "colour": enhanced(ImageEnhance.Color),
    "contrast": enhanced(ImageEnhance.Contrast),
    "sharpness": enhanced(ImageEnhance.Sharpness),
    "posterize": lambda picture, strength: ImageOps.posterize(picture, 8 - round(4 * strength)),
    "solarize": lambda picture, strength: ImageOps.solarize(picture, 255 * (1 - strength)),
    "auto-contrast": lambda picture, strength: ImageOps.autocontrast(picture),
    "equalize": lambda picture, strength: ImageOps.equalize(picture),
    "grayscale": lambda picture, strength: picture.convert("L").convert("RGB"),
}


@pytest.mark.parametrize("name", randaugment.OPERATIONS)
def test_operation_is_pillows(name, pictures):
    strengths = torch.tensor([1, 3, 5, 8, 10, 12, 14, 16]) / 30
    if name in randaugment.SIGNED:
        strengths[::2] *= -1
    found = randaugment.OPERATIONS[name](pictures, strengths)
    for i, picture in enumerate(pictures.permute(0, 2, 3, 1).numpy()):
        expected = np.asarray(PILLOW[name](Image.fromarray(picture), float(strengths[i])))
        different = (found[i].permute(1, 2, 0).numpy() != expected).mean()
        # Pillow's nearest-pixel transforms step in fixed point, so a pixel on an edge may fall to its neighbour.
        assert different <= (0.05 if name in ("shear-x", "rotate") else 0), (name, i)


def test_each_picture_gets_its_own_operation_and_strength(pictures):
    operations = torch.arange(8) + 3
    strengths = torch.linspace(0.1, 0.5, 8)
    found = randaugment.apply(pictures, operations, strengths)
    for i, name in enumerate(list(randaugment.OPERATIONS)[3:11]):
        alone = randaugment.OPERATIONS[name](pictures[i : i + 1], strengths[i : i + 1])
        assert torch.equal(found[i], alone[0])


def test_draws_stay_in_their_published_ranges():
    draws = draw("randaugment", 4000, 64, np.random.default_rng(0))
    assert draws["operation"].shape == (4000, 4)
    assert set(np.unique(draws["operation"])) == set(range(13))
    bins = np.abs(draws["strength"]) * 30
    assert set(np.unique(bins.round(3))) == set(range(1, 17))
    assert abs((draws["strength"] > 0).mean() - 0.5) < 0.02
    assert abs(draws["flip"].mean() - 0.5) < 0.03
    assert not draw("none", 100, 64, np.random.default_rng(0), flips=False)["flip"].any()


def test_adaface_touches_a_fifth_by_each_of_its_means():
    draws = draw("adaface", 5000, 64, np.random.default_rng(0))
    whole = (draws["box"] == (0, 0, 64, 64)).all(axis=1)
    assert abs((~whole).mean() - 0.2) < 0.02
    assert abs((draws["side"] < 64).mean() - 0.2) < 0.02
    assert abs((draws["brightness"] != 1).mean() - 0.2) < 0.02
    top, left, bottom, right = draws["box"].T
    assert (top >= 0).all()
    assert (bottom <= 64).all()
    assert ((bottom > top) & (right > left)).all()
    assert draws["side"].min() >= 0.2 * 64 - 1


@pytest.mark.parametrize("policy", ["none", "randaugment", "adaface"])
def test_a_share_of_the_batch_comes_out_as_in_the_whole(policy, pictures):
    draws = draw(policy, len(pictures), SIZE, np.random.default_rng(5))
    whole = augment(pictures, draws)
    share = slice(1, None, 3)
    part = augment(pictures[share], {key: values[share] for key, values in draws.items()})
    assert whole.dtype == torch.uint8
    assert (part.int() - whole[share].int()).abs().max() <= 1
    assert (whole != pictures).any()


def test_flip_mirrors_the_picture(pictures):
    draws = {"flip": np.arange(8) % 2 == 0}
    found = augment(pictures, draws)
    assert torch.equal(found[0], pictures[0].flip(2))
    assert torch.equal(found[1], pictures[1])


def test_crop_is_black_outside_of_its_box(pictures):
    found = crop(pictures, torch.tensor([[2, 4, 20, 12]] * 8))
    expected = torch.zeros_like(pictures)
    expected[:, :, 2:20, 4:12] = pictures[:, :, 2:20, 4:12]
    assert torch.equal(found, expected)


@pytest.mark.parametrize("up", ["nearest", "bilinear", "bicubic"])
def test_low_resolution_is_a_resize_there_and_back(up, pictures):
    matrix, options = resampling(SIZE, 7, up), {} if up == "nearest" else {"align_corners": False}
    images = pictures.float()
    small = torch.nn.functional.interpolate(images, (7, 7), mode="bilinear", antialias=True, align_corners=False)
    expected = torch.nn.functional.interpolate(small, (SIZE, SIZE), mode=up, **options)
    torch.testing.assert_close(matrix @ images @ matrix.T, expected, atol=1e-2, rtol=1e-4)


def test_light_is_pillows_brightness_and_then_its_contrast(pictures):
    brightness = np.array([0.5, 0.7, 1, 1.2, 1.5, 0.9, 1.1, 1.3], np.float32)
    factors = np.array([0.5, -0.5, 0, 0.3, -0.2, 0.1, 0.4, -0.4], np.float32)
    whole, none = np.tile(np.array([0, 0, SIZE, SIZE]), (8, 1)), np.zeros(8, bool)
    found = augment(pictures, {"flip": none, "box": whole, "side": np.full(8, SIZE), "up": np.zeros(8, int),
                               "brightness": brightness, "contrast": factors})
    for i, picture in enumerate(pictures.permute(0, 2, 3, 1).numpy()):
        lit = ImageEnhance.Brightness(Image.fromarray(picture)).enhance(float(brightness[i]))
        expected = np.asarray(ImageEnhance.Contrast(lit).enhance(1 + float(factors[i])))
        np.testing.assert_array_equal(found[i].permute(1, 2, 0).numpy(), expected)
    assert torch.equal(found[2], pictures[2])

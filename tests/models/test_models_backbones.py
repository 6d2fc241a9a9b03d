"""Recognition backbones: sizes, shapes, and torch recognisers made of them."""

import pytest
import torch
from safetensors.torch import save_file

from negface.foundation import registry
from negface.foundation.errors import InputError
from negface.models import backbones, mobilefacenet

NAMES = ("iresnet18", "iresnet34", "iresnet50", "iresnet100")


@pytest.mark.parametrize(("name", "expected"), zip(NAMES, (24_025_600, 34_139_328, 43_590_848, 65_156_160)))
def test_backbones_are_registered_and_have_their_size(name, expected):
    with torch.device("meta"):
        model = registry.load("model", name)()
    assert sum(value.numel() for value in model.parameters()) == expected
    assert model(torch.zeros(2, 3, 112, 112, device="meta")).shape == (2, 512)


def shapes(model):
    counters = ("num_batches_tracked",)
    return {key: tuple(value.shape) for key, value in model.state_dict().items() if not key.endswith(counters)}


def norm(name, channels):
    return {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}


@pytest.mark.parametrize(("name", "blocks"), [("iresnet18", (2, 2, 2, 2)), ("iresnet34", (3, 4, 6, 3))])
def test_the_shallow_residual_networks_have_the_published_keys_and_shapes(name, blocks):
    """insightface, recognition/arcface_torch/backbones/iresnet.py."""
    expected = {"conv1.weight": (64, 3, 3, 3), "prelu.weight": (64,), **norm("bn1", 64), **norm("bn2", 512),
                "fc.weight": (512, 512 * 7 * 7), "fc.bias": (512,), **norm("features", 512)}
    before = 64
    for stage, (width, count) in enumerate(zip((64, 128, 256, 512), blocks, strict=True), 1):
        for place in range(count):
            block = f"layer{stage}.{place}"
            expected |= {f"{block}.conv1.weight": (width, before, 3, 3), f"{block}.conv2.weight": (width, width, 3, 3),
                         f"{block}.prelu.weight": (width,), **norm(f"{block}.bn1", before),
                         **norm(f"{block}.bn2", width), **norm(f"{block}.bn3", width)}
            if place == 0:
                expected[f"{block}.downsample.0.weight"] = (width, before, 1, 1)
                expected |= norm(f"{block}.downsample.1", width)
            before = width
    with torch.device("meta"):
        assert shapes(registry.load("model", name)()) == expected


TABLE_1 = [(2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1)]


def test_mobilefacenet_has_the_shapes_of_its_table():
    """arXiv 1804.07573, table 1: expansion, channels, repetitions, stride."""
    expected = {"body.0.weight": (64, 3, 3, 3), **norm("body.1", 64), "body.2.weight": (64,),
                "body.3.weight": (64, 1, 3, 3), **norm("body.4", 64), "body.5.weight": (64,)}
    before, place = 64, 6
    for expansion, width, repetitions, _ in TABLE_1:
        for _ in range(repetitions):
            hidden, block = expansion * before, f"body.{place}.layers"
            expected |= {f"{block}.0.weight": (hidden, before, 1, 1), f"{block}.2.weight": (hidden,),
                         f"{block}.3.weight": (hidden, 1, 3, 3), f"{block}.5.weight": (hidden,),
                         f"{block}.6.weight": (width, hidden, 1, 1), **norm(f"{block}.1", hidden),
                         **norm(f"{block}.4", hidden), **norm(f"{block}.7", width)}
            before, place = width, place + 1
    expected |= {f"body.{place}.weight": (512, 128, 1, 1), **norm(f"body.{place + 1}", 512),
                 f"body.{place + 2}.weight": (512,), "whole.0.weight": (512, 1, 7, 7), **norm("whole.1", 512),
                 "out.weight": (128, 512, 1, 1), **norm("norm", 128)}
    with torch.device("meta"):
        model = registry.load("model", "mobilefacenet")()
    assert shapes(model) == expected
    assert sum(value.numel() for value in model.parameters()) == 1_003_136
    assert model(torch.zeros(2, 3, 112, 112, device="meta")).shape == (2, 128)


def test_mobilefacenet_halves_the_side_and_adds_shortcuts_where_its_table_says():
    with torch.device("meta"):
        model = registry.load("model", "mobilefacenet")()
        hidden, sides, shortcuts = torch.zeros(1, 3, 112, 112), [], []
        for layer in model.body:
            hidden = layer(hidden)
            if isinstance(layer, mobilefacenet._Bottleneck):
                sides.append(hidden.shape[2])
                shortcuts.append(layer.residual)
    assert sides == [28] * 5 + [14] * 7 + [7] * 3
    assert shortcuts == [place not in (0, 5, 12) for place in range(15)]


def test_a_backbone_of_another_size_and_length():
    model = backbones.IResNet((1, 1, 1, 1), dim=32, image_size=32).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 32)
    with pytest.raises(InputError, match=r"expected \[n, 3, 32, 32\]"):
        model(torch.zeros(2, 3, 48, 48))
    with pytest.raises(InputError, match="multiple of 16"):
        backbones.IResNet((1, 1, 1, 1), image_size=40)


def test_the_scale_of_the_last_norm_is_not_trained():
    model = backbones.IResNet((1, 1, 1, 1), dim=8, image_size=16)
    frozen = [name for name, value in model.named_parameters() if not value.requires_grad]
    assert frozen == ["features.weight"]


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    model = backbones.IResNet((1, 1, 1, 1), dim=8, image_size=32, dropout=0.5)
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        assert not torch.equal(model(images), model(images))
        model.eval()
        assert torch.equal(model(images), model(images))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_recogniser_is_made_of_a_backbone_and_its_weights(tmp_path, suffix, face):
    import numpy as np

    from negface.perception import load_recognizer

    torch.manual_seed(0)
    model = backbones.iresnet18().eval()
    state = {key: value.half() if value.is_floating_point() else value for key, value in model.state_dict().items()}
    path = tmp_path / f"judge{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    model.load_state_dict(state)
    declared = {"kind": "torch", "architecture": "iresnet18", "name": "judge", "size": [112, 112], "channels": "RGB",
                "mean": 127.5, "std": 127.5, "dim": 512}
    pictures = np.stack([face(0, size=112), face(1, size=112)])
    found = load_recognizer(path, declared).embed(pictures)
    with torch.no_grad():
        tensor = torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(127.5).sub(1)
        expected = torch.nn.functional.normalize(model(tensor), dim=1).numpy()
    assert np.abs(found - expected).max() < 1e-4

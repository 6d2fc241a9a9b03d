"""Recognition backbones: sizes, shapes, and torch recognisers made of them."""

import pytest
import torch
from safetensors.torch import save_file

from negface.foundation import registry
from negface.foundation.errors import InputError
from negface.models import backbones

NAMES = ("iresnet18", "iresnet34", "iresnet50", "iresnet100")


@pytest.mark.parametrize(("name", "expected"), zip(NAMES, (24_025_600, 34_139_328, 43_590_848, 65_156_160)))
def test_backbones_are_registered_and_have_their_size(name, expected):
    with torch.device("meta"):
        model = registry.load("model", name)()
    assert sum(value.numel() for value in model.parameters()) == expected
    assert model(torch.zeros(2, 3, 112, 112, device="meta")).shape == (2, 512)


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

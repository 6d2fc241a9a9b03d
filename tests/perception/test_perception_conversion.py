"""Released backbones come out with a declaration, open as recognisers, and compute what the published ones do."""

import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny_onnx
from negface.models import backbones
from negface.perception import load_recognizer
from negface.perception.declarations import resolve_declaration
from negface.perception.networks import open_network

NARROW = {"widths": (8, 8, 16, 16), "dim": 24}
GOLDEN = Path(__file__).parents[1] / "golden"


def golden_state(name):
    """The golden weights of a published key list, in that list's order."""
    state = {}
    for key, shape in json.loads((GOLDEN / "state_dicts.json").read_text())[name]["state_dict"].items():
        r = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(0)
        elif key.endswith("running_var"):
            state[key] = 1 + 0.1 * r.abs()
        else:
            state[key] = (r / float(np.prod(shape[1:])) ** 0.5 if len(shape) > 1
                          else 0.05 * r + key.endswith("weight"))
    return state


@pytest.fixture
def released(tmp_path):
    """A narrow backbone of 18 layers as a distributed training run leaves it, in torch's old format."""
    (tmp_path / "from").mkdir()
    path = tmp_path / "from" / "16backbone.pth"
    state = backbones.iresnet18(**NARROW).state_dict()
    torch.save({f"module.{key}": value for key, value in state.items()}, path, _use_new_zipfile_serialization=False)
    return path, state


def test_backbone_becomes_a_declared_recogniser_with_the_same_weights(negface, released, tmp_path):
    path, state = released
    out = tmp_path / "student.safetensors"
    code, said, err = negface("convert", "backbone", path, "--out", out, "--licence", "mine", "--json", "-")
    assert code == 0, err
    declared = json.loads(said)["declaration"]
    assert (declared["architecture"], declared["channels"], declared["mean"]) == ("iresnet18", "RGB", [127.5] * 3)
    assert (declared["dim"], declared["options"]) == (NARROW["dim"], {"widths": list(NARROW["widths"]), "dim": 24})
    assert resolve_declaration(out).licence == "mine"
    picture = np.random.default_rng(0).integers(0, 256, (1, 112, 112, 3), np.uint8)
    network = backbones.iresnet18(**NARROW)
    network.load_state_dict(state)
    with torch.no_grad():
        tensor = torch.from_numpy(picture.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1)
        expected = torch.nn.functional.normalize(network.eval()(tensor), dim=1).numpy()
    assert np.abs(load_recognizer(out).embed(picture) - expected).max() < 1e-5


def test_onnx_recogniser_is_checked_and_gets_its_declaration(negface, tmp_path):
    source = tiny_onnx.write_linear(tmp_path / "tiny.onnx", size=112, dim=4)
    out = tmp_path / "out.onnx"
    code, _, err = negface("convert", "backbone", source, "--out", out, "--dim", 4, "--channels", "BGR")
    assert code == 0, err
    assert out.read_bytes() == source.read_bytes()
    assert load_recognizer(out).declaration.channels == "BGR"
    code, _, err = negface("convert", "backbone", source, "--out", tmp_path / "other.onnx", "--dim", 8)
    assert code == 2
    assert "gives 4 numbers a picture, 8 are declared" in err
    assert not (tmp_path / "other.onnx").exists()


@pytest.mark.parametrize(("spoil", "words"), [
    (lambda s: s.pop("fc.weight"), "'fc.weight' is not there"),
    (lambda s: s.pop("fc.bias"), "lacks 1 of .*'fc.bias'"),
    (lambda s: s.update({"fc.weight": torch.ones(512, 100)}), r"\[512, 100\], expected \[d, 784\]"),
    (lambda s: s.update({"bn1.weight": torch.ones(3)}), r"'bn1.weight' is float32 \[3\], expected float32 \[8\]"),
    (lambda s: s.update({"layer9.0.x": torch.ones(3)}), "1 entries the network does not.*layer9"),
    (lambda s: [s.pop(key) for key in list(s) if key.startswith("layer2.1.")], r"has \(2, 1, 2, 2\) blocks"),
], ids=["no last layer", "missing", "picture size", "shape", "unknown", "depth"])
def test_what_is_no_backbone_is_named_and_nothing_written(negface, released, tmp_path, spoil, words):
    state = dict(released[1])
    spoil(state)
    torch.save(state, tmp_path / "x.pth")
    code, _, err = negface("convert", "backbone", tmp_path / "x.pth", "--out", tmp_path / "out.safetensors")
    assert code == 2
    assert re.search(r"x\.pth.*" + words, err), err
    assert sorted(item.name for item in tmp_path.iterdir()) == ["from", "x.pth"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["iresnet50", "iresnet100"])
def test_full_size_backbone_computes_the_published_embedding(negface, tmp_path, name):
    torch.save(golden_state(name), tmp_path / "released.pth")
    out = tmp_path / "out.safetensors"
    code, said, err = negface("convert", "backbone", tmp_path / "released.pth", "--out", out, "--json", "-")
    assert code == 0, err
    assert json.loads(said)["declaration"]["architecture"] == name
    assert json.loads(said)["declaration"]["options"] == {}
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        found = open_network(out, resolve_declaration(out))(arrays["x"])
        assert np.abs(found - arrays["embedding"]).max() < 1e-4 * np.abs(arrays["embedding"]).max()

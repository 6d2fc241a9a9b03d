"""Golden tensors of the published networks, and their weights rebuilt from the names of the entries."""

import json
import zlib
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parents[1] / "golden"


def description(name):
    """``{"parameters", "entries", "config", "state_dict"}`` of a published network."""
    return json.loads((FOLDER / "state_dicts.json").read_text())[name]


def tensors(name):
    """The golden inputs and outputs of a network, as torch tensors."""
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def rebuild(model):
    """Fill every floating-point entry from a generator seeded by its name; evaluation mode."""
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if not value.is_floating_point():
                continue
            r = torch.randn(value.shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))
            if key.endswith("running_var"):
                value.copy_(1 + 0.1 * r.abs())
            elif value.ndim < 2:
                value.copy_((1 if key.endswith("weight") else 0) + 0.05 * r)
            else:
                value.copy_(r / value[0].numel() ** 0.5)
    return model.eval()


def shapes(model):
    """Entry names and shapes of a state dict."""
    return {key: list(value.shape) for key, value in model.state_dict().items()}


def distance(found, expected):
    """Largest difference over the largest expected magnitude."""
    return float((found - expected).abs().max() / expected.abs().max())


def options(name):
    """A published configuration as arguments of ``IDiffUNet``."""
    config = description(name)["config"]
    return {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}

"""The recipe of a run that takes seconds, as a table, and its text."""

from __future__ import annotations

import json

SIZE, PEOPLE, PICTURES = 16, 12, 3
TABLE = {
    "title": "A tiny run",
    "people": {"train_share": 0.6, "seed": 1},
    "autoencoder": {
        "model": {"image_size": SIZE, "latent_channels": 2, "channels": 32, "multipliers": [1, 2], "blocks": 1,
                  "codebook_size": 16},
        "train": {"steps": 2, "batch": 4, "warmup": 1, "precision": "fp32"}},
    "diffusion": {
        "model": {"initial_channels": 32, "channel_multipliers": [1, 1], "is_attention": [False, True],
                  "blocks_per_resolution": 1, "context_channels": 32},
        "train": {"steps": 2, "batch": 4, "warmup": 1, "precision": "fp32"}},
    "contexts": {"authentic": [0], "pca": [0]},
    "strategies": {"baseline": [0.0], "far": [0.5]},
    "sampling": {"bank": 6, "identities": 3, "images": 2, "steps": 2, "batch": 6, "size": SIZE, "codec": "png"},
    "measuring": {"bootstrap": 20, "shown_people": 2, "shown_images": 2},
}


def toml(value: dict, name: str = "") -> str:
    """A nested dictionary as TOML."""
    plain = [f"{key} = {json.dumps(item)}" for key, item in value.items() if not isinstance(item, dict)]
    head = [f"[{name}]"] if name else []
    rest = [toml(item, f"{name}.{key}" if name else key) for key, item in value.items() if isinstance(item, dict)]
    return "\n".join([*head, *plain, *rest]) + "\n"

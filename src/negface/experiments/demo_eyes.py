"""Two small recognisers of drawn faces for the demo, trained on the spot: one conditions, the other judges.

Softmax over people with the additive cosine margin of CosFace (Wang et al., arXiv 1801.09414, eq. 4). They differ in
architecture and saw different people, none of whom is in the demo's faces; two honest eyes, but short-sighted ones.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from negface.foundation.files import atomic_path, write_json
from negface.foundation.noise import keyed_generator
from negface.foundation.progress import Progress
from negface.perception.declarations import sidecar_path

from .demo_faces import draw_face

SIZE, PICTURES = 32, 12
SCALE, MARGIN = 20.0, 0.2


def _block(given: int, made: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(given, made, kernel, 2, kernel // 2, bias=False), nn.GroupNorm(8, made), nn.SiLU())


def _network(widths: tuple[int, ...], kernel: int, dim: int) -> nn.Sequential:
    side = SIZE >> len(widths)
    blocks = [_block(given, made, kernel) for given, made in zip((3, *widths), widths)]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(widths[-1] * side * side, dim))


def build_conditioner() -> nn.Module:
    """``[n, 3, 32, 32] -> [n, 64]``: four halvings, 3 x 3."""
    return _network((32, 64, 96, 128), 3, 64)


def build_judge() -> nn.Module:
    """``[n, 3, 32, 32] -> [n, 48]``: three halvings, 5 x 5."""
    return _network((24, 48, 96), 5, 48)


def write_recognizer(path: Path, *, architecture: str, population: int, steps: int, people: int = 250,
                     batch: int = 96) -> Path:
    """Train a recogniser on ``people`` people of ``population`` and write it with its declaration beside it."""
    from safetensors.torch import save_file

    torch.manual_seed(population)
    network = {"demo-recognizer": build_conditioner, "demo-judge": build_judge}[architecture]()
    images, labels = _pictures(population, people)
    _train(network, images, labels, population, steps, batch, path.stem)
    with atomic_path(path) as temporary:
        save_file(network.state_dict(), temporary)
    dim = network[-1].out_features
    write_json(sidecar_path(path), {
        "name": architecture, "kind": "torch", "architecture": architecture, "size": [SIZE, SIZE], "channels": "RGB",
        "mean": 127.5, "std": 127.5, "dim": dim, "template": "", "licence": "Apache-2.0",
        "trained_on": f"drawn people, population {population}", "source": "negface demo"})
    return path


def _pictures(population: int, people: int) -> tuple[Tensor, Tensor]:
    images = np.stack([draw_face(population, number, picture, SIZE) for number in range(people)
                       for picture in range(PICTURES)])
    labels = np.repeat(np.arange(people), PICTURES)
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().sub(127.5).div(127.5), torch.from_numpy(labels)


def _train(network: nn.Module, images: Tensor, labels: Tensor, seed: int, steps: int, batch: int, name: str) -> None:
    people = int(labels.max()) + 1
    centres = nn.Parameter(torch.randn(people, network[-1].out_features))
    optimiser = torch.optim.AdamW([*network.parameters(), centres], lr=2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    network.train()
    with Progress(f"training {name}", steps, unit="steps") as bar:
        for step in range(steps):
            random = keyed_generator("demo recogniser", seed, step)
            rows = torch.from_numpy(random.integers(0, len(images), batch))
            seen = images[rows].flip(3) if random.random() < 0.5 else images[rows]
            cosines = F.normalize(network(seen)) @ F.normalize(centres).T
            wanted = F.one_hot(labels[rows], people)
            loss = F.cross_entropy(SCALE * (cosines - MARGIN * wanted), labels[rows])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            bar.advance(note=f"loss {loss.item():.3f}")
    network.eval()

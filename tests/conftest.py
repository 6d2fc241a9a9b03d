"""Fixtures every room may use. Nothing heavy is imported here before a test asks for it."""

from __future__ import annotations

import os
import socket

# Before torch or numpy is first imported: two workers share two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
from hypothesis import settings

from drawn import draw_face

settings.register_profile("negface", deadline=None)  # a busy machine is no failure
settings.load_profile("negface")


def _refuse(*_: object, **__: object) -> None:
    raise RuntimeError("a test tried to reach the network")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test looks up a host by name; local sockets (gloo) stay possible."""
    real = socket.getaddrinfo
    local = {None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0", socket.gethostname()}

    def lookup(host, *arguments, **keywords):
        name = host.decode() if isinstance(host, bytes) else host
        return real(host, *arguments, **keywords) if name in local else _refuse()

    monkeypatch.setattr(socket, "getaddrinfo", lookup)


@pytest.fixture(autouse=True)
def same_seed_every_time() -> None:
    """Tests that use global generators by accident still give the same answer."""
    import random
    import sys

    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        import torch

        torch.manual_seed(0)
        torch.set_num_threads(1)


@pytest.fixture
def face():
    """``face(identity, image=0, size=32)``: a drawn picture, uint8 RGB; the same arguments give the same picture."""
    return draw_face


@pytest.fixture
def face_folder(tmp_path):
    """``face_folder(n_identities, n_images, size=32)``: identity folders ``0000/00.png`` of drawn pictures."""
    from PIL import Image

    def make(n_identities: int = 3, n_images: int = 2, size: int = 32, name: str = "faces"):
        root = tmp_path / name
        for identity in range(n_identities):
            folder = root / f"{identity:04d}"
            folder.mkdir(parents=True)
            for image in range(n_images):
                Image.fromarray(draw_face(identity, image, size)).save(folder / f"{image:02d}.png")
        return root

    return make


@pytest.fixture
def negface(capsys):
    """Run a command line in this process: ``code, out, err = negface("contexts", "uniform", ...)``."""
    from negface.cli.main import main

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(item) for item in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run

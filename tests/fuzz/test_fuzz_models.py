"""Readers of models and what belongs to them under damaged files: read, or refused with a ``NegFaceError``, soon."""

from __future__ import annotations

import json
import pickle
import zipfile

import numpy as np
import pytest
import torch
import yaml
from damage import check_reader
from safetensors.torch import save_file

from negface.contexts import ContextBank
from negface.contexts.released import read_released
from negface.curation import read_landmarks
from negface.evaluation.group_labels import read_groups
from negface.foundation.checkpoints import read_checkpoint
from negface.foundation.tensors import read_tensors
from negface.models import IDiffUNet, VQAutoencoder, backbones
from negface.perception import read_declaration, read_embeddings, write_embeddings
from negface.perception.conversion import convert_backbone
from negface.pipelines.convert import convert_idiff_face

pytestmark = pytest.mark.slow
VECTORS = np.eye(3, 8, dtype=np.float32)
CONTEXTS = {str(row): vector for row, vector in enumerate(VECTORS)}
MODEL = {"initial_channels": 32, "channel_multipliers": [1], "is_attention": [False], "n_blocks_per_resolution": 1,
         "attention_head_channels": 32, "context_input_channels": 8, "context_channels": 32, "condition_type": "AdaGN",
         "is_context_conditional": True}


def a_state():
    return {"a": torch.arange(6.0).reshape(2, 3).t(), "half": torch.ones(3).half(), "n": np.arange(3), "s": {"t": (1,)}}


def checkpoint_zip(folder):
    torch.save(a_state(), folder / "a.ckpt")
    return [folder / "a.ckpt"], lambda: read_checkpoint(folder / "a.ckpt")


def checkpoint_stream(folder):
    torch.save(a_state(), folder / "a.ckpt", _use_new_zipfile_serialization=False)
    return [folder / "a.ckpt"], lambda: read_checkpoint(folder / "a.ckpt")


def resealed(path):
    """The pickle of a checkpoint as a file of its own, and what puts it back into an archive whose sums are right."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    (pickled,) = (name for name in entries if name.endswith("data.pkl"))
    apart = path.with_suffix(".pkl")
    apart.write_bytes(entries[pickled])

    def seal():
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in entries.items():
                archive.writestr(name, apart.read_bytes() if name == pickled else data)

    return apart, seal


def checkpoint_pickle(folder):
    torch.save(a_state(), folder / "a.ckpt")
    apart, seal = resealed(folder / "a.ckpt")
    return [apart], lambda: (seal(), read_checkpoint(folder / "a.ckpt"))


def contexts_pickle(folder):
    (folder / "c.npy").write_bytes(pickle.dumps(CONTEXTS, protocol=2))
    return [folder / "c.npy"], lambda: read_released(folder / "c.npy")


def contexts_array(folder):
    np.save(folder / "c.npy", VECTORS)
    return [folder / "c.npy"], lambda: read_released(folder / "c.npy")


def contexts_object(folder):
    np.save(folder / "c.npy", CONTEXTS)
    return [folder / "c.npy"], lambda: read_released(folder / "c.npy")


def context_bank(folder):
    ContextBank.from_vectors(VECTORS).save(folder / "b.safetensors")
    return [folder / "b.safetensors"], lambda: ContextBank.load(folder / "b.safetensors").hash


def tensors_file(folder):
    save_file({"a": torch.ones(2).half(), "b": torch.ones(3)}, folder / "a.safetensors", {"negface": '{"a": [1]}'})
    return [folder / "a.safetensors"], lambda: read_tensors(folder / "a.safetensors", ("b",))


def embeddings(suffix):
    def reader(folder):
        path = folder / f"e{suffix}"
        write_embeddings(path, VECTORS, np.array([0, 0, 1]), identities=("a", "b"), images=("x", "y", "z"),
                         provenance={"recognizer": {"name": "r", "hash": "0" * 64}})
        return [path], lambda: (read_embeddings(path).recognizer, np.array(read_embeddings(path).embeddings).sum())

    reader.__name__ = f"embeddings_{suffix[1:]}"
    return reader


def declaration(suffix):
    def reader(folder):
        path = folder / f"d{suffix}"
        path.write_text(json.dumps({"name": "r", "size": [112, 112], "channels": "RGB", "mean": 127.5, "std": [1, 2, 3],
                                    "dim": 8, "options": {"dim": 8}}) if suffix == ".json" else
                        'name = "r"\nsize = [112, 112]\nchannels = "RGB"\nmean = 127.5\nstd = 2.0\ndim = 8\n')
        return [path], lambda: read_declaration(path)

    reader.__name__ = f"declaration_{suffix[1:]}"
    return reader


def released_folder(folder):
    """Configuration and pickles of a released model with one level."""
    (folder / ".hydra").mkdir()
    (folder / "checkpoints").mkdir()
    config = {"latent_diffusion": True, "constants": {"image_size": 16, "input_channels": 3}, "model": MODEL,
              "diffusion": {"eps_model": "${model}", "T": 1000}, "paths": ["${constants.image_size}"]}
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    unet = IDiffUNet(in_channels=3, sample_size=8, initial_channels=32, channel_multipliers=(1,), is_attention=(False,),
                     blocks_per_resolution=1, context_input=8, context_channels=32, condition_type="AdaGN")
    files = {"checkpoints/model.ckpt": {"betas": torch.linspace(1e-4, 0.02, 1000), **{
        f"eps_model.{key}": value for key, value in unet.state_dict().items()}}}
    vae = VQAutoencoder(image_size=16, channels=32, multipliers=(1, 2), blocks=1, codebook_size=4).state_dict()
    for half, parts in (("encoder", ("encoder.", "quant_conv.")), ("decoder", ("decoder.", "quantize.", "post_"))):
        files[f"first_stage_{half}_state_dict.pt"] = {k: v for k, v in vae.items() if k.startswith(parts)}
    for name, state in files.items():
        torch.save(state, folder / name)
    apart, seals = zip(*(resealed(folder / name) for name in files))
    return [folder / ".hydra" / "config.yaml", *apart], lambda: ([seal() for seal in seals],
                                                                 convert_idiff_face(folder))


def backbone(folder):
    torch.save({f"module.{k}": v for k, v in backbones.iresnet18(widths=(8,) * 4, dim=8).state_dict().items()},
               folder / "b.pth")
    apart, seal = resealed(folder / "b.pth")
    return [apart], lambda: (seal(), convert_backbone(folder / "b.pth", folder / "out.safetensors"))


def landmarks(folder):
    row = "30 50 60 50 45 70 35 90 60 90"
    (folder / "l.txt").write_text(f"2\nx y x y x y x y x y\na.png {row}\nb.png {row} 0.5\n")
    return [folder / "l.txt"], lambda: read_landmarks(folder / "l.txt").of(["a.png", "b.jpg"])


def groups(folder):
    (folder / "g.csv").write_text("identity,sex\na,f\nb,\n")
    return [folder / "g.csv"], lambda: read_groups(folder / "g.csv")


READERS = [checkpoint_zip, checkpoint_stream, checkpoint_pickle, contexts_pickle, contexts_array, contexts_object,
           context_bank, tensors_file, embeddings(".npz"), embeddings(".safetensors"), declaration(".json"),
           declaration(".toml"), released_folder, backbone, landmarks, groups]


@pytest.mark.timeout(0)
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_a_damaged_model_file_is_read_or_refused_and_never_crashes_or_hangs(tmp_path, reader):
    check_reader(*reader(tmp_path))

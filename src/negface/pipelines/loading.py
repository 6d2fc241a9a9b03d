"""A pipeline on disk: read with checks that name the file, written all at once.

Only the classes named here are ever built and only safetensors are read, whatever ``model_index.json`` asks for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from diffusers.utils import logging as diffusers_logging

from negface.foundation.errors import FormatError, InputError, NegFaceError, OutputError
from negface.foundation.files import existing_folder, read_json
from negface.foundation.tensors import read_metadata
from negface.models.published import LARGEST_BLOCKS, LARGEST_LEVELS, shown

SMALLEST_NUMBER = 2  # bytes: half precision
INDEX, WEIGHTS = "model_index.json", "diffusion_pytorch_model.safetensors"


def load_components(path: Path, classes: Mapping[str, type], optional: tuple[str, ...] = (),
                    torch_dtype: torch.dtype | None = None) -> dict[str, Any]:
    """The components of a saved pipeline.

    Args:
        path: a folder made by ``save_pretrained``.
        classes: the class each component must have.
        optional: components that may be missing.
        torch_dtype: dtype of the networks; ``None`` keeps float32.

    Raises:
        InputError: no such folder. FormatError: something is missing, truncated, or of another class.
    """
    folder = existing_folder(path, "model folder")
    if not (folder / INDEX).is_file():
        raise FormatError(f"has no {INDEX}, so it is no saved pipeline", where=folder,
                          fix="name the folder that save_pretrained wrote")
    index, found = read_json(folder / INDEX), {}
    for name, expected in classes.items():
        written = index.get(name, [None, None])
        if written == [None, None] and name in optional:
            found[name] = None
        elif written != [expected.__module__, expected.__name__]:
            raise FormatError(f"component {name!r} is {written}, expected {[expected.__module__, expected.__name__]}",
                              where=folder / INDEX)
        else:
            found[name] = load_component(folder / name, expected, torch_dtype)
    return found


def load_component(folder: Path, build: type, torch_dtype: torch.dtype | None = None) -> Any:
    """One component of a saved pipeline; ``FormatError`` names what is wrong with it."""
    config = read_json(folder / build.config_name)
    is_network = issubclass(build, ModelMixin)
    if is_network:
        for name in weight_files(folder):
            read_metadata(folder / name)
        _check_size(config, build, folder)
    try:
        if not is_network:
            return build.from_pretrained(folder, local_files_only=True)
        with _no_progress_bar():
            model, report = build.from_pretrained(folder, local_files_only=True, use_safetensors=True,
                                                  torch_dtype=torch_dtype, low_cpu_mem_usage=False,
                                                  output_loading_info=True)
    except NegFaceError:
        raise
    except Exception as error:  # diffusers raises OSError, ValueError, RuntimeError, ... for a broken folder
        raise FormatError(f"cannot be loaded ({_first_line(error)})", where=folder,
                          fix="the file is truncated or of another model: copy or make it again") from error
    wrong = [f"{what} {', '.join(map(str, report[key][:3]))}" for key, what in
             (("missing_keys", "lacks"), ("unexpected_keys", "has unknown"), ("mismatched_keys", "has misshapen"))
             if report.get(key)]
    if wrong:
        raise FormatError(f"does not fit its configuration: {'; '.join(wrong)}", where=folder / WEIGHTS,
                          fix="weights and config.json must come from the same model")
    return model.eval()


def _check_size(config: Any, build: type, folder: Path) -> None:
    """Refuse a network that its weights cannot fill before it takes memory: a damaged number may ask for any size."""
    where = folder / build.config_name
    if not isinstance(config, dict):
        raise FormatError(f"is a {type(config).__name__}, a JSON object was expected", where=where)
    for key, value in config.items():
        values = value if isinstance(value, list) else [value]
        depth = [item for item in values if "blocks" in key and isinstance(item, int | float)]
        if len(values) > LARGEST_LEVELS or max(depth, default=0) > LARGEST_BLOCKS:
            raise FormatError(f"{key} is {shown(value)}, far beyond any network", where=where,
                              fix="the file is damaged: copy or make it again")
    available = sum((folder / name).stat().st_size for name in weight_files(folder)) // SMALLEST_NUMBER
    try:
        with torch.device("meta"):
            wanted = sum(value.numel() for value in build.from_config(config).state_dict().values())
    except NegFaceError:
        raise
    except Exception as error:
        raise FormatError(f"describes no network ({_first_line(error)})", where=where) from error
    if wanted > available:
        raise FormatError(f"describes a network of {wanted:,} numbers, the weights hold {available:,} at most",
                          where=where, fix="weights and config.json must come from the same model")


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """diffusers draws a bar for weights in several parts, whoever listens."""
    shown = diffusers_logging.is_progress_bar_enabled()
    diffusers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            diffusers_logging.enable_progress_bar()


def weight_files(folder: Path) -> list[str]:
    """The weights of a component: one file, or the parts that an index names."""
    index = folder / f"{WEIGHTS}.index.json"
    if not index.is_file():
        return [WEIGHTS]
    parts = read_json(index).get("weight_map")
    names = sorted(set(parts.values())) if isinstance(parts, dict) else []
    if not names or any(not isinstance(name, str) or Path(name).name != name for name in names):
        raise FormatError("names no weights", where=index, fix="copy or make it again")
    return names


def check_target(path: Path) -> None:
    """``OutputError`` unless ``path`` is free, empty, or holds a saved pipeline (which a new one may replace)."""
    if path.is_file():
        raise OutputError("is a file, a folder was expected", where=path)
    if path.is_dir() and any(path.iterdir()) and not (path / INDEX).is_file():
        raise OutputError("is not empty and holds no saved pipeline", where=path, fix="choose a new folder")


def _first_line(error: Exception) -> str:
    return "; ".join(line.strip() for line in str(error).strip().splitlines()[:2]) or type(error).__name__


def model_folder(path_or_name: Any) -> Path:
    """The folder of a model given by path."""
    if not str(path_or_name).strip():
        raise InputError("the name of the model is empty", where="from_pretrained")
    return Path(path_or_name).expanduser()

"""Networks that answer for pictures, ONNX or torch, behind one call: float32 ``[n, 3, h, w]`` to ``[n, k]``.

The graph is checked against the declaration when it is opened. Parallelism is over chunks, each computed by one thread,
so the answer does not depend on the number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ..foundation import registry
from ..foundation.devices import check_device, device_parts
from ..foundation.errors import FormatError, InputError, MismatchError
from .declarations import Declaration
from .inputs import normalise

Network = Callable[[np.ndarray], np.ndarray]
CHUNK = {"cpu": 8, "cuda": 128}


def available_threads() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def _mismatch(path: Path, declaration: Declaration, what: str) -> MismatchError:
    return MismatchError(f"{what}, against its declaration {declaration.name!r}", where=path,
                         fix="correct the declaration, or give the file it was written for")


def _check_graph(path: Path, declaration: Declaration, given: Any, answer: Any) -> None:
    shape = list(given.shape)
    if given.type != "tensor(float)":
        raise _mismatch(path, declaration, f"takes {given.type}, float32 was expected")
    if len(shape) != 4:
        raise _mismatch(path, declaration, f"takes an input of shape {shape}, four axes were expected")
    for name, found, declared in zip(("channels", "height", "width"), shape[1:], (3, *declaration.size)):
        if isinstance(found, int) and found != declared:
            raise _mismatch(path, declaration, f"takes {found} for {name}, {declared} is declared")
    fixed = shape[0] if isinstance(shape[0], int) and shape[0] > 0 else None
    if fixed is not None and declaration.batch != fixed:
        raise _mismatch(path, declaration, f"is fixed to batches of {fixed}, {declaration.batch or 'any'} is declared")
    last = answer.shape[-1] if answer.shape else None
    if isinstance(last, int) and last != declaration.dim:
        raise _mismatch(path, declaration, f"gives {last} numbers a picture, {declaration.dim} are declared")


def _named(path: Path, declaration: Declaration, nodes: list[Any], name: str, what: str) -> Any:
    chosen = [node for node in nodes if node.name == name] if name else nodes[:1]
    if not chosen:
        raise _mismatch(path, declaration, f"has no {what} {name!r} (it has {', '.join(n.name for n in nodes)})")
    return chosen[0]


def open_onnx(path: Path, declaration: Declaration, *, device: str = "cpu") -> Network:
    """An ONNX graph, checked against its declaration; one thread a call (calls may run at the same time)."""
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError("onnxruntime is not installed", where=path, fix="pip install 'negface[onnx]'") from error
    kind, number = device_parts(device)
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[kind]
    if provider not in onnxruntime.get_available_providers():
        raise InputError(f"this onnxruntime cannot run on {device!r}", where=path,
                         fix=f"it has: {', '.join(onnxruntime.get_available_providers())}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=[
            (provider, {} if number is None else {"device_id": number})])
    except Exception as error:  # onnxruntime raises a dozen classes of its own
        reason = str(error).splitlines()[0]
        raise FormatError(f"not a complete ONNX model ({reason})", where=path, fix="make or copy it again") from error
    given = _named(path, declaration, session.get_inputs(), declaration.input_name, "input")
    answer = _named(path, declaration, session.get_outputs(), declaration.output_name, "output")
    _check_graph(path, declaration, given, answer)
    return lambda tensor: session.run([answer.name], {given.name: tensor})[0]


def read_state_dict(path: Path) -> dict[str, Any]:
    """A plain state dict from safetensors, or from a torch file without running any pickle code."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise FormatError(f"not a complete safetensors file ({error})", where=path) from error
    except Exception as error:  # torch raises by the fault it meets first
        reason = str(error).splitlines()[0][:120]
        raise FormatError(f"not a plain state dict ({reason})", where=path,
                          fix="give .safetensors or a state dict") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise FormatError("not a plain state dict", where=path, fix="save model.state_dict()")
    return {key.removeprefix("module."): value for key, value in state.items()}


def module_network(module: Any, *, device: str = "cpu") -> Network:
    """A torch module ``[n, 3, h, w] -> [n, k]`` as a network; it is put into evaluation mode."""
    import torch

    module = module.eval().to(check_device(device))

    def network(tensor: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(tensor).to(device)).float().cpu().numpy()

    return network


def open_torch(path: Path, declaration: Declaration, *, device: str = "cpu") -> Network:
    """A state dict for the registered model ``declaration.architecture``, loaded without running any pickle code."""
    from .. import models  # noqa: F401  (registers the architectures)

    module = registry.load("model", declaration.architecture)(**declaration.options)
    try:
        module.load_state_dict(read_state_dict(path))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise FormatError(f"does not fit {declaration.architecture} ({reason})", where=path) from error
    return module_network(module, device=device)


def open_network(path: Path, declaration: Declaration, *, device: str = "cpu") -> Network:
    """The network of a declared file."""
    return {"onnx": open_onnx, "torch": open_torch}[declaration.kind](path, declaration, device=device)


def answers(network: Network, images: np.ndarray, declaration: Declaration, *, threads: int = 1,
            device: str = "cpu") -> np.ndarray:
    """Run uint8 ``[n, h, w, 3]`` RGB images of the declared size through a network: float32 ``[n, dim]``.

    A file fixed to batches of b gets exactly b pictures a call (the last call is padded).
    """
    step = declaration.batch or CHUNK[device_parts(device)[0]]

    def chunk(start: int) -> np.ndarray:
        part = images[start:start + step]
        missing = step - len(part) if declaration.batch else 0
        if missing:
            part = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
        answer = np.asarray(network(normalise(part, declaration)), np.float32).reshape(len(part), -1)
        if answer.shape[1] != declaration.dim:
            raise MismatchError(f"{declaration.name} gave {answer.shape[1]} numbers a picture, {declaration.dim} are "
                                "declared", fix="correct the declaration")
        return answer[:len(part) - missing]

    starts = range(0, len(images), step)
    if threads > 1 and len(starts) > 1:
        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(chunk, starts))
    else:
        parts = [chunk(start) for start in starts]
    return np.concatenate(parts) if parts else np.zeros((0, declaration.dim), np.float32)

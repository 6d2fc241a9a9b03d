"""The machine: what decides the bytes beside the plan's settings, which is the kind of processor and the libraries.

A plan holds both, so a node that would give other bytes is refused.
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import numpy as np

import negface
from negface.foundation.devices import check_device

# The instruction sets by which the matrix libraries choose how they compute, and the variables that keep them from it.
_SETS = ("amx_bf16", "amx_fp16", "avx512_bf16", "avx512_fp16")
_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "MKL_CBWR",
           "MKL_ENABLE_INSTRUCTIONS")


def versions(*, perception: bool = False) -> dict[str, str]:
    """Versions of all that computes: they decide the bytes. ``perception``: where filters or a detector look too."""
    import diffusers
    import PIL
    import torch

    found = {"negface": negface.__version__, "torch": torch.__version__, "diffusers": diffusers.__version__,
             "numpy": np.__version__, "pillow": PIL.__version__}
    if perception:
        import cv2
        import onnxruntime

        found |= {"onnxruntime": onnxruntime.__version__, "opencv": cv2.__version__}
    return found


def processor(device: str) -> str:
    """The kind of processor: maker, instruction sets that matrix libraries choose by, limits set on them (or the GPU).

    Raises:
        InputError: for a name that is none, and for ``cuda`` on a machine without a usable GPU.
    """
    import torch

    if check_device(device) != "cpu":
        return torch.cuda.get_device_name(torch.device(device))
    has = getattr(torch.cpu, "get_capabilities", dict)()
    sets = [name for name in _SETS if has.get(name)]
    limits = [f"{name}={os.environ[name]}" for name in _LIMITS if os.environ.get(name)]
    return " ".join([platform.machine(), *_maker(), torch.backends.cpu.get_cpu_capability(), *sets, *limits])


def _maker() -> list[str]:
    """Who made the processor: the matrix libraries take other paths on another's."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return [platform.processor()] if platform.processor() else []
    return re.findall(r"^vendor_id\s*:\s*(\S+)", text, re.MULTILINE)[:1]


def gpus(device: str) -> list[str]:
    """The GPUs that workers of ``cuda`` share out among them, as ``CUDA_VISIBLE_DEVICES`` names them; else none."""
    import torch

    if device != "cuda":
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [str(index) for index in range(torch.cuda.device_count())] if named is None else named.split(",")

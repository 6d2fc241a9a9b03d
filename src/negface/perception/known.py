"""Well-known public model files by SHA-256, with the declarations and terms their authors give.

No weights ship with NegFace. A figure in ``measured`` was measured here; the terms are those of the weights.
"""

from __future__ import annotations

from ..foundation.registry import register
from .declarations import Declaration

_IMAGENET_MEAN, _IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

EDGEFACE_XS = Declaration(
    name="edgeface-xs", sha256="b6b2f0559d7d10c48643988d6c2ee538b44a7352ddc45cab6baa821e561dc71b",
    input_name="input", dim=512, licence="BSD-3-Clause (weights; trained on research data)",
    trained_on="research data, see the paper",
    source="Idiap, EdgeFace-XS (IEEE T-BIOM), ONNX export")

MOBILEFACENET_FOAMLIU = Declaration(
    name="mobilefacenet-foamliu", sha256="b7120c095d60094f28a4a54ba6a8bf51b297a6273fb40ef6350dfec1f63d9507",
    input_name="input0", dim=128, batch=1, mean=_IMAGENET_MEAN, std=_IMAGENET_STD,
    licence="Apache-2.0 (weights; trained on research data)", trained_on="MS1M",
    source="github.com/foamliu/MobileFaceNet")

_FSANET = {"task": "pose", "size": (64, 64), "channels": "BGR", "mean": (127.5,) * 3, "std": (128.0,) * 3, "dim": 3,
           "batch": 1, "input_name": "input", "template": "", "licence": "MIT", "trained_on": "300W-LP",
           "source": "FSA-Net (CVPR 2019), ONNX export of its PyTorch port"}
FSANET_1X1 = Declaration(name="fsanet-1x1", **_FSANET,
                         sha256="d85e90cb4b9d3a87e81bbfdcfcd130cbe0e175407042e439a570aa396c44eda6")
FSANET_VAR = Declaration(name="fsanet-var", **_FSANET,
                         sha256="2877b1db98e3dc66468e90df8db4a21059facd1c3f107af91c6d4fe6476a03e1")

LIGHTQNET = Declaration(
    name="lightqnet-dm100", sha256="0ad9a58a838f81bcccc10469af9647e410702070959c4ab4543bf86863472a33", task="quality",
    size=(96, 96), mean=(128.0,) * 3, std=(128.0,) * 3, dim=1, input_name="input", template="arcface", licence="MIT",
    source="LightQNet (IEEE SPL 2021), ONNX export")

YUNET = Declaration(
    name="yunet-n-dynamic", sha256="104ee26c71d5c270ce79a6b3dced91c91013260d29a6bf18f9296c5b8c4c2b12", task="detector",
    size=(0, 0), channels="BGR", mean=(0.0,) * 3, std=(1.0,) * 3, dim=0, input_name="input", template="",
    licence="BSD-3-Clause", trained_on="WIDER FACE", source="github.com/ShiqiYu/libfacedetection.train")

KNOWN = {item.sha256: item for item in (EDGEFACE_XS, MOBILEFACENET_FOAMLIU, FSANET_1X1, FSANET_VAR, LIGHTQNET, YUNET)}

_PAPERS = {
    "EDGEFACE_XS": ("face recogniser, 512-d (declaration)", "arXiv 2307.01838",
                    "EER 0.61 % on 3,795 LFW view-2 pairs (2,173 genuine), flip summed"),
    "MOBILEFACENET_FOAMLIU": ("face recogniser, 128-d (declaration)", "arXiv 1804.07573",
                              "EER 0.92 % on the same LFW pairs, flip summed (1.18 % without; 1.53 % if fed BGR)"),
    "FSANET_1X1": ("head pose, first of the averaged pair (declaration)", "FSA-Net, CVPR 2019", ""),
    "FSANET_VAR": ("head pose, second of the averaged pair (declaration)", "FSA-Net, CVPR 2019", ""),
    "LIGHTQNET": ("face image quality 0..1 (declaration)", "LightQNet, IEEE Signal Processing Letters 2021", ""),
    "YUNET": ("face detector with five landmarks (declaration)", "YuNet, Machine Intelligence Research 2023", ""),
}
for _attribute, (_summary, _paper, _measured) in _PAPERS.items():
    _known: Declaration = globals()[_attribute]
    register("perception", _known.name, f"{__name__}:{_attribute}", _summary, paper=_paper, measured=_measured,
             tags=(_known.task, f"weights: {_known.licence}"))

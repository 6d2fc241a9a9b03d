"""What this room registers: metrics and the protocol, each with its definition and source."""

from __future__ import annotations

from ..foundation.registry import register

_HERE = "negface.evaluation"
_NEG = "arXiv 2508.09661"


def _metric(name: str, function: str, summary: str, paper: str) -> None:
    register("metric", name, f"{_HERE}:{function}", summary, paper=paper)


_metric("fdr", "separability", "Fisher discriminant ratio (mg - mi)^2 / (sg^2 + si^2) of genuine and impostor scores",
        f"{_NEG}, identity separability")
_metric("dprime", "separability", "d' = |mg - mi| / sqrt((sg^2 + si^2) / 2); FDR = d'^2 / 2",
        "Tanner and Swets 1954; Daugman 2004")
_metric("eer", "separability", "mean of FMR and FNMR at the threshold where they differ least",
        f"{_NEG}; ISO/IEC 19795-1 for FMR and FNMR")
_metric("fmr100", "separability", "least FNMR with FMR <= 1 %",
        f"{_NEG}; threshold that satisfies the bound, not nearest")
_metric("fmr1000", "separability", "least FNMR with FMR <= 0.1 %",
        f"{_NEG}; threshold that satisfies the bound, not nearest")
_metric("adherence", "adherence", "the conditioner's mean cosine of an image to its wanted context",
        "arXiv 2308.04995, identity conditioning")
_metric("pose-spread", "pose_diversity",
        "root of the summed variances of yaw, pitch and roll of a person's images, degrees",
        "arXiv 2602.18831, pose std as intra-class diversity")
_metric("feature-distance", "feature_diversity", "mean pairwise 1 - cosine of a person's images under a named network",
        "arXiv 1801.03924 for distances in feature space")
_metric("leakage", "leakage", "share of images whose nearest training person reaches the threshold of FMR 0.1 %",
        "arXiv 2410.24015, training-image leakage in synthetic sets")
register("protocol", "separability/1", f"{_HERE}:separability",
         "all pairs, exact; 95 % bootstrap over identities in which copies of a person are never impostors",
         paper=f"{_NEG}; intervals ours, docs/evaluation.md")
register("protocol", "verification/1", "negface.evaluation.verification:verification",
         "ten folds, embedding plus mirror image, squared L2, threshold of the other nine folds; TAR@FAR",
         paper="insightface verification rule, after UMass TR 07-49")
register("protocol", "ijb-1:1/1", "negface.evaluation.template_protocol:template_verification",
         "templates pooled by media, TAR@FAR over the pairs of a meta file", paper="IJB-C, ICB 2018, 1:1 protocol")

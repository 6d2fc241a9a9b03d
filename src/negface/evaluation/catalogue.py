"""What this room registers: metrics and the protocol, each with its definition and source."""

from __future__ import annotations

from ..foundation.registry import register

_HERE = "negface.evaluation"
_NEG = "arXiv 2508.09661"


def _metric(name: str, function: str, summary: str, paper: str) -> None:
    target = f"{_HERE}.{function}" if ":" in function else f"{_HERE}:{function}"
    register("metric", name, target, summary, paper=paper)


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
_metric("vendi-score", "_fidelity:vendi_score", "exp of the entropy of the eigenvalues of the cosine kernel over n",
        "arXiv 2210.02410, eq. 3")
_metric("frechet-distance", "_fidelity:frechet_distance",
        "squared Frechet distance of Gaussians fitted to recogniser features; exact for n < d",
        "arXiv 1706.08500, eq. 6, on recogniser features in place of Inception's")
_metric("precision-recall", "_fidelity:fidelity",
        "share of a set inside the 3-nearest-neighbour manifold of the reference, and the reverse",
        "arXiv 1904.06991, eqs. 1 and 2")
_metric("attribute-spread", "_attributes:attribute_spread",
        "standard deviation of pose, light, expression and age among a person's images, by the analyser",
        "arXiv 2602.18831, intra-class diversity")
_metric("tar-at-far", "pair_scores:pair_rates", "highest TAR whose FAR does not exceed the bound; interval over people",
        "ISO/IEC 19795-1")
_metric("tpir-at-fpir", "_identification:identification",
        "share of searches whose mate is the best candidate, at a bound on false positive identification",
        "ISO/IEC 19795-1; NISTIR 8271, sec. 3")
_metric("group-gap", "groups:fairness", "difference between the worst and the best group, of every measure",
        "ISO/IEC 19795-10; NISTIR 8280")
register("protocol", "separability/1", f"{_HERE}:separability",
         "all pairs, exact; 95 % bootstrap over identities in which copies of a person are never impostors",
         paper=f"{_NEG}; intervals ours, docs/evaluation.md")
register("protocol", "verification/1", "negface.evaluation.verification:verification",
         "ten folds, embedding plus mirror image, squared L2, threshold of the other nine folds; TAR@FAR",
         paper="insightface verification rule, after UMass TR 07-49")
register("protocol", "ijb-1:1/1", "negface.evaluation.template_protocol:template_verification",
         "templates pooled by media, TAR@FAR over the pairs of a meta file", paper="IJB-C, ICB 2018, 1:1 protocol")
register("protocol", "identification/1", "negface.evaluation._identification:identification",
         "open-set search: a share of the people enrolled with k images, everyone's others searched for",
         paper="NISTIR 8271, sec. 3")
register("protocol", "fairness/1", "negface.evaluation.groups:fairness",
         "each group within itself and at one threshold for all; worst group, gap, least number of people",
         paper="ISO/IEC 19795-10; NISTIR 8280")
register("protocol", "causal-bias/1", "negface.evaluation.causal:causal_effects",
         "one attribute changed, all else fixed: paired effects on scores and error rates, jointly 95 %",
         paper="arXiv 2308.05441")

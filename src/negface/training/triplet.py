"""Triplet loss with semi-hard negatives mined in the batch: FaceNet, arXiv 1503.03832, sec. 3.1-3.2.

It needs batches with several pictures of each of their people; a head without class centres.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def semi_hard_negatives(distances: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All anchor-positive pairs of a batch, each with the nearest negative that is further off than the positive.

    Args:
        distances: squared distances ``[n, n]``.
        labels: int64 ``[n]``.

    Returns:
        anchors, positives, negatives: int64 ``[p]``. A pair whose negatives are all nearer than its positive is left
        out: learning from the hardest negatives collapses the embedding (sec. 3.2).
    """
    same = labels[:, None] == labels[None]
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    anchors, positives = (same & ~itself).nonzero(as_tuple=True)
    further = ~same[anchors] & (distances[anchors] > distances[anchors, positives, None])
    nearest = distances[anchors].masked_fill(~further, torch.inf)
    negatives = nearest.argmin(dim=1)
    usable = further.any(dim=1)
    return anchors[usable], positives[usable], negatives[usable]


class TripletHead(nn.Module):
    """``[|a - p|² - |a - n|² + margin]_+`` of unit embeddings, mean over the triplets of the batch (eq. 2)."""

    def __init__(self, margin: float = 0.2):
        super().__init__()
        self.margin = margin

    def loss(self, embeddings: Tensor, labels: Tensor, noise: Tensor | None = None) -> Tensor:
        """Embeddings ``[n, d]``, not of unit length, and labels int64 ``[n]`` to a scalar; 0 without a triplet.

        ``noise`` is what other heads draw their margins with; it is not read.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            unit = F.normalize(embeddings.float())
            # On the sphere |a - b|² = 2 - 2 cos, without the n x n x d differences.
            distances = 2 - 2 * unit @ unit.T
            anchors, positives, negatives = semi_hard_negatives(distances.detach(), labels)
            losses = F.relu(distances[anchors, positives] - distances[anchors, negatives] + self.margin)
            return losses.sum() / max(1, len(losses))


def triplet(n_classes: int, dim: int, *, margin: float = 0.2) -> TripletHead:
    """Semi-hard triplets; the number of classes and the length of embeddings do not matter."""
    return TripletHead(margin)

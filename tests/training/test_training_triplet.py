"""Semi-hard mining against three loops."""

import pytest
import torch
from torch.nn import functional as F

from negface.training.triplet import TripletHead, semi_hard_negatives


def slow(embeddings, labels, margin):
    unit, losses = F.normalize(embeddings), []
    for a in range(len(unit)):
        for p in range(len(unit)):
            if a == p or labels[a] != labels[p]:
                continue
            near = (unit[a] - unit[p]).square().sum()
            others = [(unit[a] - unit[n]).square().sum() for n in range(len(unit)) if labels[n] != labels[a]]
            further = [distance for distance in others if distance > near]
            if further:
                losses.append(F.relu(near - min(further) + margin))
    return torch.stack(losses).mean()


def test_loss_is_the_mean_over_all_pairs_with_the_nearest_further_negative():
    embeddings, labels = torch.randn(24, 6).requires_grad_(), torch.arange(24) % 5
    found, expected = TripletHead(0.2).loss(embeddings, labels), slow(embeddings, labels, 0.2)
    torch.testing.assert_close(found, expected)
    first, second = (torch.autograd.grad(loss, embeddings)[0] for loss in (found, expected))
    torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-4)


def test_chosen_negatives_are_of_others_and_further_than_the_positive():
    embeddings, labels = F.normalize(torch.randn(40, 4)), torch.arange(40) % 6
    distances = torch.cdist(embeddings, embeddings).square()
    a, p, n = semi_hard_negatives(distances, labels)
    assert len(a) > 20
    assert (labels[a] == labels[p]).all()
    assert (labels[a] != labels[n]).all()
    assert (a != p).all()
    assert (distances[a, n] > distances[a, p]).all()


def test_a_batch_without_a_triplet_costs_nothing_and_has_a_gradient():
    embeddings = torch.randn(4, 3).requires_grad_()
    loss = TripletHead().loss(embeddings, torch.arange(4))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0)
    assert float(embeddings.grad.abs().max()) == 0

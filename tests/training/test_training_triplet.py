"""Semi-hard mining against three loops."""

import pytest
import torch
from torch.nn import functional as F

from negface.training.recognition import whole_batch_loss
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


class Share:
    """One of two processes, as accelerate shows it, with what the other one holds."""

    num_processes = 2

    def __init__(self, process_index, whole, labels):
        self.process_index, self.whole, self.labels = process_index, whole, labels

    def gather(self, tensor):
        return self.whole if tensor.is_floating_point() else self.labels


def test_processes_with_one_picture_of_each_person_move_the_weights_as_one_process_does():
    torch.manual_seed(3)
    head, network = TripletHead(), torch.nn.Linear(6, 4)
    images, labels = torch.randn(8, 6), torch.arange(4).repeat(2)
    assert head.loss(network(images[:4]), labels[:4]) == 0

    def gradient(of):
        network.zero_grad()
        value = of()
        value.backward()
        return value.detach(), network.weight.grad.clone()

    loss, whole = gradient(lambda: head.loss(network(images), labels))
    shares = [gradient(lambda rank=rank: whole_batch_loss(
        head, network(images[4 * rank:][:4]), labels[:4], Share(rank, network(images).detach(), labels)))
        for rank in range(2)]
    assert loss > 0
    for found, _ in shares:
        torch.testing.assert_close(found, loss)
    torch.testing.assert_close((shares[0][1] + shares[1][1]) / 2, whole)

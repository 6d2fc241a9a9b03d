"""The sampled classifier against the whole one."""

import numpy as np
import pytest
import torch

from negface.foundation.errors import InputError
from negface.training.heads import make_head
from negface.training.sampled import SampledHead, sample_classes

PEOPLE, DIM = 30, 8


def heads(rate, **options):
    torch.manual_seed(0)
    whole, other = make_head("arcface", PEOPLE, DIM), make_head("arcface", PEOPLE, DIM)
    other.load_state_dict(whole.state_dict())
    return whole, SampledHead(other, rate, **options)


def batches(n=5):
    generator = torch.Generator().manual_seed(4)
    return [(torch.randn(16, DIM, generator=generator), torch.randint(0, PEOPLE, (16,), generator=generator))
            for _ in range(n)]


def test_rate_one_is_the_whole_classifier_under_sgd():
    whole, sampled = heads(1.0, momentum=0.9, weight_decay=5e-4)
    optimizer = torch.optim.SGD(whole.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for step, (embeddings, labels) in enumerate(batches()):
        one, other = embeddings.clone().requires_grad_(), embeddings.clone().requires_grad_()
        loss = whole.loss(one, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        sampled.choose(labels.numpy(), np.random.default_rng(step))
        again = sampled.loss(other, labels)
        again.backward()
        sampled.update(0.1)
        assert torch.equal(again.detach(), loss.detach())
        assert torch.equal(one.grad, other.grad)
        torch.testing.assert_close(sampled.head.weight.detach(), whole.weight.detach(), rtol=1e-6, atol=1e-7)


def test_sample_holds_all_classes_of_the_batch_and_is_of_its_size():
    labels = np.array([3, 3, 17, 29])
    for seed in range(20):
        chosen = sample_classes(labels, PEOPLE, 0.3, np.random.default_rng(seed))
        assert len(chosen) == 9
        assert set(labels) <= set(chosen.tolist())
        assert (np.diff(chosen) > 0).all()
    assert sample_classes(labels, PEOPLE, 0.01, np.random.default_rng(0)).tolist() == [3, 17, 29]


def test_others_are_drawn_alike():
    counts = np.zeros(PEOPLE)
    for seed in range(600):
        counts[sample_classes(np.array([0]), PEOPLE, 0.2, np.random.default_rng(seed))] += 1
    assert counts[0] == 600
    assert abs(counts[1:] - 600 * 5 / 29).max() < 50


def test_only_sampled_centres_move():
    _, sampled = heads(0.3)
    before = sampled.head.weight.detach().clone()
    embeddings, labels = batches(1)[0]
    labels = labels % 4
    chosen = sample_classes(labels.numpy(), PEOPLE, 0.3, np.random.default_rng(9))
    sampled.choose(labels.numpy(), np.random.default_rng(9))
    sampled.loss(embeddings, labels).backward()
    sampled.update(0.1)
    moved = (sampled.head.weight.detach() != before).any(dim=1).nonzero().squeeze(1)
    assert moved.tolist() == chosen.tolist()


def test_loss_is_that_of_the_sampled_classes_alone():
    whole, sampled = heads(0.3)
    embeddings, labels = batches(1)[0]
    chosen = sample_classes(labels.numpy(), PEOPLE, 0.7, np.random.default_rng(2))
    sampled.rate = 0.7
    sampled.choose(labels.numpy(), np.random.default_rng(2))
    logits = whole(embeddings, labels)[:, chosen]
    expected = torch.nn.functional.cross_entropy(logits, torch.searchsorted(torch.from_numpy(chosen), labels))
    torch.testing.assert_close(sampled.loss(embeddings, labels), expected)


def test_gradient_of_centres_is_clipped_and_rates_are_checked():
    _, sampled = heads(1.0, momentum=0.0, weight_decay=0.0)
    before = sampled.head.weight.detach().clone()
    embeddings, labels = batches(1)[0]
    sampled.choose(labels.numpy(), np.random.default_rng(0))
    sampled.loss(embeddings, labels).backward()
    sampled.update(1.0, clip=0.5)
    assert float((sampled.head.weight.detach() - before).norm()) == pytest.approx(0.5, rel=1e-4)
    with pytest.raises(InputError, match="sample rate is 0"):
        heads(0)

"""Margin heads against their equations, written out a picture at a time."""

import math

import numpy as np
import pytest
import torch

from negface.foundation import registry
from negface.foundation.errors import InputError, UnknownNameError
from negface.training.heads import HEADS, QualityMargin, add_angle, hardest_first, make_head

PEOPLE, DIM, N = 7, 12, 20


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(N, DIM, generator=generator) * torch.rand(N, 1, generator=generator) * 20
    return embeddings, torch.randint(0, PEOPLE, (N,), generator=generator), torch.randn(N, generator=generator)


def slow_logits(head, embeddings, labels, own_logit, scale):
    """A logit at a time, in Python floats; ``own_logit(angle, norm, place)``."""
    out = np.zeros((N, PEOPLE))
    for i, x in enumerate(embeddings.double().numpy()):
        for j, w in enumerate(head.weight.detach().double().numpy()):
            cosine = x @ w / np.linalg.norm(x) / np.linalg.norm(w)
            right = own_logit(math.acos(cosine), float(np.linalg.norm(x)), i) if j == int(labels[i]) else cosine
            out[i, j] = scale * right
    return out


def check(name, own_logit, scale=64.0, **options):
    torch.manual_seed(1)
    head = make_head(name, PEOPLE, DIM, **options)
    embeddings, labels, noise = batch()
    found = head(embeddings, labels, noise).detach().numpy()
    np.testing.assert_allclose(found, slow_logits(head, embeddings, labels, own_logit, scale), atol=2e-3)


def test_cosface_subtracts_its_margin_from_the_own_cosine():
    check("cosface", lambda angle, norm, i: math.cos(angle) - 0.35)


def test_arcface_adds_its_margin_to_the_own_angle():
    check("arcface", lambda angle, norm, i: math.cos(angle + 0.5))


def test_normface_has_no_margin():
    check("normface", lambda angle, norm, i: math.cos(angle))


def test_elastic_heads_use_a_margin_of_their_own_for_each_picture():
    noise = batch()[2].tolist()
    check("elastic-arc", lambda angle, norm, i: math.cos(angle + 0.5 + 0.05 * noise[i]))
    check("elastic-cos", lambda angle, norm, i: math.cos(angle) - (0.35 + 0.05 * noise[i]))


def test_adaface_turns_and_subtracts_by_the_norm():
    norms = [float(np.linalg.norm(x)) for x in batch()[0].numpy()]
    mean = 20 + 0.01 * (np.mean(norms) - 20)
    deviation = 100 + 0.01 * (np.std(norms, ddof=1) - 100)

    def own(angle, norm, i):
        quality = min(1, max(-1, (norm - mean) / (deviation + 1e-3) * 0.333))
        return math.cos(angle - 0.4 * quality) - 0.4 * quality - 0.4

    check("adaface", own)


@pytest.mark.parametrize(("elastic", "fixed"), [("elastic-arc", "arcface"), ("elastic-arc+", "arcface"),
                                                ("elastic-cos", "cosface"), ("elastic-cos+", "cosface")])
def test_elastic_with_sigma_zero_is_the_fixed_margin_exactly(elastic, fixed):
    embeddings, labels, noise = batch()
    one, other = make_head(elastic, PEOPLE, DIM, sigma=0.0), make_head(fixed, PEOPLE, DIM)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(embeddings, labels, noise), other(embeddings, labels))


def test_plus_gives_the_largest_margins_to_the_hardest_pictures():
    margins, cosines = torch.randn(50), torch.rand(50)
    assigned = hardest_first(margins, cosines)
    assert torch.equal(assigned.sort().values, margins.sort().values)
    by_difficulty = assigned[cosines.argsort()]
    assert (by_difficulty.diff() <= 0).all()


def test_margin_never_stops_to_hurt_beyond_pi():
    cosines = torch.linspace(-1, 1, 2001)
    found = add_angle(cosines, 0.5)
    assert (found < cosines).all()
    assert (found.diff() > 0).all()


def test_gradients_are_finite_for_an_embedding_on_its_centre_and_opposite_to_it():
    for name in HEADS:
        if name == "triplet":
            continue
        head = make_head(name, PEOPLE, DIM)
        for sign in (1, -1):
            embeddings = (sign * head.weight.detach()).clone().requires_grad_()
            head.loss(embeddings, torch.arange(PEOPLE), torch.zeros(PEOPLE)).backward()
            assert torch.isfinite(embeddings.grad).all(), name
            assert torch.isfinite(head.weight.grad).all(), name
            head.zero_grad()


def test_margins_are_computed_in_fp32_under_bf16_autocast():
    embeddings, labels, noise = batch()
    head = make_head("elastic-arc", PEOPLE, DIM)
    rounded = embeddings.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = head(rounded, labels, noise)
    assert found.dtype == torch.float32
    assert torch.equal(found, head(rounded.float(), labels, noise))


def test_adaface_statistics_move_in_training_only_and_quality_has_no_gradient():
    rule, norms = QualityMargin(), torch.rand(16) * 40
    first = rule.quality(norms.requires_grad_())
    assert not first.requires_grad
    assert float(rule.mean) == pytest.approx(20 + 0.01 * (float(norms.detach().mean()) - 20))
    rule.eval()
    before = float(rule.mean)
    rule.quality(norms)
    assert float(rule.mean) == before
    assert (first.abs() <= 1).all()
    assert first.argmax() == norms.argmax()


def test_every_head_learns_to_tell_people_apart():
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(PEOPLE).repeat_interleave(8)
    inputs = torch.randn(PEOPLE, DIM, generator=generator)[labels] + 0.3 * torch.randn(56, DIM, generator=generator)
    for name in HEADS:
        torch.manual_seed(0)
        net = torch.nn.Linear(DIM, DIM)
        head = make_head(name, PEOPLE, DIM)
        optimizer = torch.optim.Adam([*net.parameters(), *head.parameters()], lr=0.02)
        losses = []
        for _ in range(40):
            loss = head.loss(net(inputs), labels, torch.randn(len(labels)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < 0.75 * losses[0], name


def test_registry_tells_of_every_head():
    tagged = {entry.name for entry in registry.entries("loss") if "head" in entry.tags}
    assert tagged == set(HEADS)
    assert all(registry.load("loss", name) is HEADS[name] for name in tagged)


def test_unknown_heads_and_options_are_refused_with_what_there_is():
    with pytest.raises(UnknownNameError, match="did you mean 'arcface'"):
        make_head("arcfase", PEOPLE, DIM)
    with pytest.raises(InputError, match="it takes: margin, scale"):
        make_head("arcface", PEOPLE, DIM, sigma=1.0)
    with pytest.raises(InputError, match="at least 2 identities"):
        make_head("arcface", 1, DIM)

"""Faster gradients on a processor against torch's own."""

import pytest
import torch
from torch import nn

from negface.models import processor_gradients
from negface.models.processor_gradients import PReLU, StridedDepthwise


def gradients(layer, hidden, given):
    hidden = hidden.detach().requires_grad_()
    layer.zero_grad()
    answer = layer(hidden)
    answer.backward(given.to(answer.dtype))
    return [answer.detach(), hidden.grad, *(weight.grad.clone() for weight in layer.parameters())]


def drawn(*shape, dtype=torch.float32):
    return torch.randn(shape, dtype=torch.float32).to(dtype).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_prelu_has_torchs_answers_and_gradients_over_many_blocks(dtype, tolerance, monkeypatch):
    monkeypatch.setattr(processor_gradients, "BLOCK", 60)
    torch.manual_seed(0)
    ours, torchs = PReLU(6), nn.PReLU(6)
    with torch.no_grad():
        ours.weight.copy_(torch.linspace(-0.5, 1, 6))
        torchs.load_state_dict(ours.state_dict())
    hidden, given = drawn(3, 6, 5, 7, dtype=dtype), drawn(3, 6, 5, 7, dtype=dtype)
    hidden[0, :, 0] = 0
    found = gradients(ours, hidden, given)
    expected = gradients(torchs, hidden.float(), given.float())
    assert found[1].dtype == dtype
    for one, other in zip(found, expected):
        torch.testing.assert_close(one.float(), other, rtol=tolerance, atol=tolerance * float(other.abs().max()))


def test_strided_depthwise_in_bf16_has_the_gradients_of_fp32():
    torch.manual_seed(1)
    ours, torchs = StridedDepthwise(8, 3, 2), nn.Conv2d(8, 8, 3, 2, 1, groups=8, bias=False)
    torchs.load_state_dict(ours.state_dict())
    hidden, given = drawn(2, 8, 9, 8, dtype=torch.bfloat16), drawn(2, 8, 5, 4, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(ours, hidden, given)
    expected = gradients(torchs, hidden.float(), given.float())
    assert (found[0].dtype, found[1].dtype, found[2].dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
    for one, other in zip(found, expected):
        torch.testing.assert_close(one.float(), other, rtol=1e-2, atol=1e-2 * float(other.abs().max()))


@pytest.mark.parametrize("hidden", [torch.ones(2, 4, 3, 3), torch.ones(2, 4)], ids=["channels first", "no pixels"])
def test_what_is_not_laid_out_for_it_goes_through_torchs_own(hidden, monkeypatch):
    monkeypatch.setattr(processor_gradients._PReLUGradient, "apply", None)
    assert torch.equal(PReLU(4)(-hidden.clone()), -0.25 * hidden)


def test_layers_without_gradients_are_torchs_own(monkeypatch):
    monkeypatch.setattr(processor_gradients._PReLUGradient, "apply", None)
    monkeypatch.setattr(processor_gradients._StridedDepthwiseGradient, "apply", None)
    hidden = drawn(2, 4, 6, 6)
    with torch.no_grad():
        assert PReLU(4)(hidden).shape == hidden.shape
        assert StridedDepthwise(4, 3, 2)(hidden).shape == (2, 4, 3, 3)

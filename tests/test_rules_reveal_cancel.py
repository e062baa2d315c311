"""Reveal-cancel: what raises and what lowers an activation is kept apart."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attrib import deep_lift
from zoo import close, data


def _minimum(x: Tensor) -> Tensor:
    return x[..., 0] - torch.relu(x[..., 0] - x[..., 1])


def test_the_minimum_of_the_paper() -> None:
    x = torch.tensor([[3.0, 4.0], [4.0, 3.0], [5.0, 2.0]])
    rescaled = torch.tensor([[3.0, 0.0], [0.0, 3.0], [0.0, 2.0]])
    assert torch.equal(deep_lift(_minimum)(x), rescaled)
    least = x.amin(-1, keepdim=True)
    found = deep_lift(_minimum, rule="reveal-cancel")(x)
    torch.testing.assert_close(found, (least / 2).expand_as(x))


def _weighted_sums(x: Tensor, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    signs = torch.tensor([1.0, -1.0, 1.0], dtype=x.dtype)
    return {
        "linear": F.linear(x, weight, bias),
        "matmul": bias + x @ weight.T,
        "addmm": torch.addmm(bias, x, weight.T),
        "einsum": torch.einsum("bi,oi->bo", x, weight) + bias,
        "conv": F.conv1d(x[..., None], weight[..., None], bias).flatten(1),
        "two halves": F.linear(x[:, :2], weight[:, :2]) + F.linear(x[:, 2:], weight[:, 2:], bias),
        "products": torch.stack([(x * row).sum(-1) for row in weight], -1) + bias,
        "difference": -(-bias - F.linear(x, weight)),
        "signs": F.linear(x, weight * -signs[:, None], bias * -signs) * -signs,
        "quotient": F.linear(x, 4 * weight, 4 * bias) / 4,
        "reshaped": F.linear(x, weight, bias).view(-1, 3, 1).transpose(1, 2).flatten(1),
        "in place": F.linear(x, weight).add_(bias).mul_(1.0),
    }


@pytest.mark.parametrize("spelling", list(_weighted_sums(data(2, 4), data(3, 4), data(3))))
@pytest.mark.parametrize("in_place", [False, True])
def test_reveal_cancel_does_not_depend_on_how_a_sum_is_written(
    spelling: str, in_place: bool
) -> None:
    weight, bias, x, baseline = data(3, 4), data(3, seed=1), data(9, 4, seed=2), data(9, 4, seed=3)

    def f(x: Tensor) -> Tensor:
        total = _weighted_sums(x, weight, bias)[spelling]
        return (total.relu_() if in_place else F.relu(total)).sum(-1)

    with torch.no_grad():
        found = deep_lift(f, rule="reveal-cancel")(x, baseline)
    close(found, _revealed(x, baseline, weight, bias), 1e-13)


def _revealed(x: Tensor, baseline: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Section 3.5.3 of the paper, term by term."""
    terms = weight * (x - baseline)[:, None]
    up, down = terms.clamp(min=0).sum(-1), terms.clamp(max=0).sum(-1)
    start = baseline @ weight.T + bias
    f0, f_up, f_down, f1 = (F.relu(start + rise) for rise in (0, up, down, up + down))
    raised, lowered = (f_up - f0 + f1 - f_down) / (2 * up), (f_down - f0 + f1 - f_up) / (2 * down)
    return (torch.where(terms > 0, raised[..., None], lowered[..., None]) * terms).sum(1)


def test_reveal_cancel_sees_a_batch_norm_as_part_of_the_sum() -> None:
    layer, norm = nn.Linear(4, 3).double(), nn.BatchNorm1d(3).double().eval()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2.0, -1.0, 0.5]))
        norm.bias.copy_(torch.tensor([0.1, -0.2, 0.3]))
        norm.running_mean.copy_(torch.tensor([0.3, 0.1, -0.5]))
        x, baseline = data(9, 4), data(9, 4, seed=1)
        factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
        weight = factor[:, None] * layer.weight
        bias = factor * (layer.bias - norm.running_mean) + norm.bias
        model = nn.Sequential(layer, norm, nn.ReLU(inplace=True))
        found = deep_lift(lambda x: model(x).sum(-1), rule="reveal-cancel")(x, baseline)
        close(found, _revealed(x, baseline, weight, bias), 1e-13)


def test_reveal_cancel_gives_what_does_not_move_the_mean_of_both_slopes() -> None:
    weight = torch.tensor([[1.0, -2.0, 3.0]])
    x, baseline = torch.tensor([[4.0, 1.0, 0.5]]), torch.tensor([[0.0, 0.0, 0.5]])
    multipliers = deep_lift(
        lambda x: F.relu(F.linear(x, weight))[..., 0], rule="reveal-cancel", multiply=False
    )(x, baseline)
    # The sum goes from 1.5 up by 4 and down by 2, to 3.5.
    raised, lowered = ((5.5 - 1.5) + (3.5 - 0.0)) / 8, ((0.0 - 1.5) + (3.5 - 5.5)) / -4
    expected = torch.tensor([[raised, -2 * lowered, 3 * (raised + lowered) / 2]])
    torch.testing.assert_close(multipliers, expected)

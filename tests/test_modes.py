"""A rewritten operation has the value of the original, and derivatives that can be trusted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attrib._modes import Rewrite, smooth_operations

WEIGHT, BIAS = torch.tensor([0.5, -2.0, 1.5]), torch.tensor([0.1, 0.2, -0.3])
NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "layer": lambda h: F.layer_norm(h, (3, 4)),
    "layer, affine": lambda h: F.layer_norm(h.mT, (3,), WEIGHT.to(h.dtype), BIAS.to(h.dtype), 0.1),
    "layer, module": lambda h: nn.LayerNorm(4, dtype=h.dtype)(h),
    "layer, from torch": lambda h: torch.layer_norm(h, (4,), None, None, 1e-3, False),
    "instance": lambda h: F.instance_norm(h),
    "instance, affine": lambda h: F.instance_norm(
        h, None, None, WEIGHT.to(h.dtype), BIAS.to(h.dtype), True, 0.1, 1e-2
    ),
    "instance, from torch": lambda h: torch.instance_norm(
        h, WEIGHT.to(h.dtype), BIAS.to(h.dtype), None, None, True, 0.1, 1e-2, False
    ),
    "instance, fixed": lambda h: F.instance_norm(
        h, BIAS.to(h.dtype), WEIGHT.to(h.dtype).abs(), use_input_stats=False
    ),
}
every_norm = pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS.keys())


def data(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).to(dtype)


@every_norm
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_rewritten_norm_is_the_same_function(
    norm: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    with smooth_operations():
        found = norm(data(dtype))
    expected = norm(data(dtype))
    assert found.dtype == dtype
    # One rounding of the largest value: in half precision the kernels also round in between.
    atol = 2 * torch.finfo(dtype).eps * expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


@every_norm
def test_a_rewritten_norm_has_right_third_derivatives(norm: Callable[[Tensor], Tensor]) -> None:
    x = data()
    along = torch.randn(4, *x.shape, generator=torch.Generator().manual_seed(1)).double()

    def second(at: Tensor) -> Tensor:
        with smooth_operations():
            (first,) = torch.autograd.grad(
                (norm(at) * along[0].reshape(norm(at).shape)).pow(2).sum(), at, create_graph=True
            )
        (slope,) = torch.autograd.grad((first * along[1]).sum(), at, create_graph=True)
        return (slope * along[2]).sum()

    at = x.clone().requires_grad_()
    (third,) = torch.autograd.grad(second(at), at, allow_unused=True)
    step = 1e-5 * along[3]
    ahead, behind = (second((x + s).requires_grad_()).detach() for s in (step, -step))
    found = 0.0 if third is None else (third * along[3]).sum()
    torch.testing.assert_close(
        found * torch.ones(()), (ahead - behind) / 2e-5, rtol=1e-6, atol=1e-5
    )


def test_a_mode_ends_with_its_block_even_on_an_error() -> None:
    doubled = Rewrite({torch.relu: lambda h: 2 * h})
    one = torch.ones(1)
    with pytest.raises(KeyError), doubled:
        assert torch.relu(one) == 2
        raise KeyError
    assert torch.relu(one) == 1

"""An attribution is an ordinary function: it can be batched, compiled and differentiated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from torch import Tensor, nn

import attrib
from attrib.types import Tree
from laws.compare import assert_close
from laws.methods import METHODS, Law, MethodInfo, Sample, claiming, every, such_that
from laws.networks import data, few, kinds, network, seeds, single_kinds, smooth_kinds


def sample(kind: str, seed: int, batch: tuple[int, ...] = (5,)) -> Sample:
    return Sample(
        data(kind, seed, batch=batch),
        data(kind, seed + 1, batch=batch),
        data(kind, seed + 2, batch=(4,)),
    )


@claiming(Law.VMAP)
@few
@given(kind=single_kinds, seed=seeds)
def test_vmap_over_examples_is_a_loop(info: MethodInfo, kind: str, seed: int) -> None:
    model, drawn = network(kind, seed), sample(kind, seed, batch=(3,))
    dims = (0, None) if info.takes == "baselines" else (0,) * len(info.arguments(drawn))

    # The tokens of one example could be taken for the rows of a batch.
    marked = [] if kind == "attention" else [attrib.target(model, 0)]
    for f in (lambda x: model(x)[..., 0], *marked):
        # Without a generator of its own, every call starts from the global state.
        attribute = info.factory(f)
        arguments = info.arguments(drawn)
        found = torch.vmap(attribute, dims, randomness="same")(*arguments)
        looped = [
            attribute(*(a if dim is None else a[i] for a, dim in zip(arguments, dims, strict=True)))
            for i in range(3)
        ]
        assert_close(found, torch.stack(looped), 1e-12)


@claiming(Law.VMAP)
@few
@given(seed=seeds)
def test_vmap_over_targets_is_a_loop(info: MethodInfo, seed: int) -> None:
    model, drawn = network("gelu", seed), sample("gelu", seed)

    def of(index: Tensor) -> Tensor:
        return info.factory(attrib.target(model, index))(*info.arguments(drawn))

    found = torch.vmap(of, randomness="same")(torch.arange(3))
    assert_close(found, torch.stack([of(torch.tensor(i)) for i in range(3)]), 1e-12)


@such_that(lambda info: Law.VMAP not in info.laws)
def test_a_method_that_does_not_claim_vmap_refuses_it(info: MethodInfo) -> None:
    model, drawn = network("gelu"), sample("gelu", 0)
    attribute = info.factory(lambda x: model(x)[..., 0])
    with pytest.raises(attrib.AttribError, match=r"torch\.vmap"):
        torch.vmap(attribute)(*info.arguments(drawn))


# One for each way through the engine, also on images; the others take a minute together.
COMPILED = (
    *("saliency", "integrated_gradients", "integrated_gradients[path]", "var_grad"),
    *("expected_gradients[std]", "expected(integrated_gradients)", "per_target(saliency)"),
    *("deep_lift", "lrp"),
)


@pytest.mark.parametrize(
    ("info", "kind"),
    [
        pytest.param(info, kind, id=f"{info.name}-{kind}", marks=marks)
        for info in METHODS
        for kind in (("gelu", "conv") if info.name in COMPILED else ("gelu",))
        if Law.COMPILE in info.laws
        for marks in [() if (info.name in COMPILED and kind == "gelu") else pytest.mark.slow]
    ],
)
# Of torch about itself: it has no fast rule for batch_norm inside of both vmap and the compiler.
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_a_compiled_attribution_gives_the_same_numbers(info: MethodInfo, kind: str) -> None:
    if info.name == "smooth_grad(expected_gradients)":
        pytest.skip("compiled, the inner draws go on from the outer ones: other numbers, same law")
    model, drawn = network(kind), sample(kind, 0)
    # Without a generator: a compiler knows none, and draws from the global one as it is now, which
    # with this backend are the numbers that come from a copy of it.
    attribute = info.factory(attrib.target(model, 0))
    torch.compiler.reset()
    compiled = torch.compile(attribute, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        expected = attribute(*info.arguments(drawn))
        found = compiled(*info.arguments(drawn))
    assert_close(found, expected, 1e-12)


@such_that(lambda info: Law.COMPILE not in info.laws)
def test_a_method_that_does_not_claim_compilation_refuses_it(info: MethodInfo) -> None:
    model, drawn = network("gelu"), sample("gelu", 0)
    torch.compiler.reset()
    compiled = torch.compile(info.factory(attrib.target(model, 0)), backend="aot_eager")
    with torch.no_grad(), pytest.raises(attrib.AttribError, match=r"torch\.compile"):
        compiled(*info.arguments(drawn))


def _directional(info: MethodInfo, model: nn.Module, drawn: Sample, seed: int) -> Tensor:
    """One number that depends on every entry of an attribution."""
    found = info(attrib.target(model, 1), drawn)
    generator = torch.Generator().manual_seed(seed)
    return (found * torch.randn(found.shape, generator=generator, dtype=found.dtype)).sum()


@contextmanager
def _moved(tensors: list[Tensor], by: list[Tensor], step: float) -> Iterator[None]:
    before = [tensor.detach().clone() for tensor in tensors]
    for tensor, direction in zip(tensors, by, strict=True):
        tensor.data.add_(direction, alpha=step)
    yield
    for tensor, old in zip(tensors, before, strict=True):
        tensor.data.copy_(old)


@every()
@few
@given(kind=smooth_kinds, seed=seeds)
def test_derivatives_of_an_attribution_are_right(info: MethodInfo, kind: str, seed: int) -> None:
    model, drawn = network(kind, seed), sample(kind, seed, batch=(2,))
    generator = torch.Generator().manual_seed(seed)
    x = drawn.x.requires_grad_()
    for tensors in ([x], list(model.parameters())):
        found = torch.autograd.grad(
            _directional(info, model, drawn, seed), tensors, allow_unused=True
        )
        by = [torch.randn(t.shape, generator=generator, dtype=t.dtype) for t in tensors]
        slope = sum((g * v).sum() for g, v in zip(found, by, strict=True) if g is not None)

        @torch.no_grad()
        def difference(step: float, tensors: list[Tensor] = tensors, by: Any = by) -> Tensor:
            with _moved(tensors, by, step):
                after = _directional(info, model, drawn, seed)
            with _moved(tensors, by, -step):
                before = _directional(info, model, drawn, seed)
            return (after - before) / (2 * step)

        # The share by which a cancelling sum may be off is one of its terms.
        terms = sum((g * v).abs().sum() for g, v in zip(found, by, strict=True) if g is not None)
        scale = torch.maximum(slope.abs(), terms)
        expected = difference(1e-5)
        if info.name == "guided_ig":
            # Where another feature comes first, the attribution jumps: there is no derivative.
            assume((difference(2e-6) - expected).abs() <= 1e-4 * scale)
        assert_close(expected, slope, 1e-4, scale)
        assert slope != 0


@claiming(Law.VMAP)
@few
@given(kind=smooth_kinds, seed=seeds)
def test_torch_func_and_backward_agree_on_derivatives(
    info: MethodInfo, kind: str, seed: int
) -> None:
    model, drawn = network(kind, seed), sample(kind, seed, batch=(2,))

    def of(x: Tensor) -> Tensor:
        return _directional(info, model, drawn._replace(x=x), seed)

    leaf = drawn.x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(of(leaf), leaf)
    assert_close(torch.func.grad(of)(drawn.x), expected, 1e-12)


@claiming(Law.VMAP)
# Of torch about itself, the first time that forward mode is used.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_forward_and_reverse_mode_agree_on_derivatives(info: MethodInfo) -> None:
    model, drawn = network("gelu"), sample("gelu", 0)
    attribute = info.factory(attrib.target(model, 1))
    tangent = torch.randn_like(drawn.x)

    def of(x: Tensor) -> Tensor:
        return attribute(*info.arguments(drawn._replace(x=x)))

    _, forward = torch.func.jvp(of, (drawn.x,), (tangent,))
    _, pullback = torch.func.vjp(of, drawn.x)
    cotangent = torch.randn_like(forward)
    expected = (pullback(cotangent)[0] * tangent).sum()
    assert_close((forward * cotangent).sum(), expected, 1e-10)


@every()
@few
@given(kind=kinds, seed=seeds)
def test_recording_gradients_does_not_change_the_numbers(
    info: MethodInfo, kind: str, seed: int
) -> None:
    f, drawn = attrib.target(network(kind, seed), 2), sample(kind, seed)
    recorded = info(f, drawn)
    with torch.no_grad():
        alone = info(f, drawn)
    with torch.inference_mode():
        inside = info(f, drawn)
    assert_close(alone, recorded, 1e-12)
    assert_close(inside.clone(), recorded, 1e-12)


@every()
@pytest.mark.parametrize("marked", [False, True], ids=["unmarked", "marked"])
def test_an_attribution_has_a_graph_only_where_somebody_could_use_it(
    info: MethodInfo, marked: bool
) -> None:
    model, drawn = network("gelu"), sample("gelu", 0)
    f = attrib.target(model, 0) if marked else lambda x: model(x)[..., 0]
    assert info(f, drawn).requires_grad
    with torch.no_grad():
        assert not info(f, drawn).requires_grad
    assert not info(f, drawn._replace(x=drawn.x.requires_grad_())).detach().requires_grad
    frozen = model.requires_grad_(False)
    drawn = drawn._replace(x=drawn.x.detach())
    f = attrib.target(frozen, 0) if marked else lambda x: frozen(x)[..., 0]
    assert not info(f, drawn).requires_grad


def _leaves_are_plain(tree: Tree) -> bool:
    return all(type(leaf) is Tensor for leaf in torch.utils._pytree.tree_leaves(tree))


@every()
def test_an_attribution_is_made_of_plain_tensors(info: MethodInfo) -> None:
    drawn = sample("gelu", 0)
    wrapped = drawn._replace(x=nn.Parameter(drawn.x))
    assert _leaves_are_plain(info(attrib.target(network("gelu"), 0), wrapped))

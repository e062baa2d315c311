"""Inside a model: reading a site, splitting a score there, and methods on layers and neurons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from attrib._batched import Batched, Rows, baseline_of, inherit
from attrib._checks import check_baseline, check_callable, check_input, describe
from attrib._inside import Sites
from attrib._marking import wrapped
from attrib._outputs import check_index
from attrib._passed import only_tensor
from attrib._sites import Site, SiteLike
from attrib._taps import tap
from attrib._tree import differentiable, flatten, leaves, leaves_for, put, tree_map, unflatten
from attrib._watching import check_floating
from attrib.errors import AttribError, AttribValueError
from attrib.scores import choosing, outputs_of
from attrib.types import Attribute, Score, Tree

__all__ = [
    "Site",
    "activation",
    "activation_and_gradient",
    "gradient_x_activation",
    "layer",
    "neuron",
    "neuron_index",
    "split",
    "tap",
]


def activation(
    model: Callable[..., Any], site: SiteLike, *, stochastic: bool = False
) -> Callable[..., Tree]:
    """What a site yields, :math:`h(x)`.

    The model is called as `attrib.target` calls it, and left where the site is passed, as soon as
    it is known how often that happens.

    Args:
        model: Module or function; a score will do.
        site: A `Site`, a module, its dotted name or the name of a `tap`, or a tree of them.
        stochastic: As for `attrib.target`.

    Returns:
        ``read(x, *args)``: the tensor, ``(*batch, ...)``, or the tree of tensors that passes there;
        for a tree of sites a tree of those.

    Raises:
        AttribTypeError: If a site is none.
        AttribValueError: If a site is not in the model, is not reached, or is reached several times
            without saying which call is meant.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Identity(), nn.ReLU())
        >>> activation(model, "1")(torch.tensor([[-1.0, 2.0]]))
        tensor([[0., 2.]])
    """
    check_callable(model, "model", "pass a module or a function")
    run = model if isinstance(model, Batched) else outputs_of(model, stochastic)
    return Sites(run, site).reading()


def neuron(
    model: Callable[..., Any],
    site: SiteLike,
    index: Any = None,
    *,
    stochastic: bool = False,
) -> Score:
    """One neuron of a layer as a score, to which every method applies.

    Args:
        model: Module or function.
        site: A `Site`, a module, its dotted name or the name of a `tap`.
        index: Which neuron. An integer for a layer ``(batch, neurons)``, or a slice, which stands
            for the sum over it; a tuple with one for every dimension behind the batch; a LongTensor
            ``(batch,)`` for one neuron per example; an integer tensor without dimensions, to `vmap`
            over neurons; a function of what the site yields that returns ``(batch,)``; ``None`` if
            it yields one number per example. Only a function takes a site of several tensors.
        stochastic: As for `attrib.target`.

    Returns:
        ``f(x, *args) -> (batch,)``.

    Raises:
        AttribTypeError: If a site yields several tensors, and `index` is no function.
        AttribError: As for `attrib.target` and `activation`.

    Example:
        >>> import torch, attrib
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> x = torch.randn(5, 3)
        >>> gradient = attrib.saliency(neuron(model, "0", 2))(x)
        >>> torch.allclose(gradient, model[0].weight[2].expand(5, 3))
        True
    """
    read = activation(model, site, stochastic=stochastic)
    return choosing(read if callable(index) else single(read), neuron_index(index))


def single(read: Callable[..., Tree]) -> Callable[..., Tensor]:
    """The one tensor that a function yields; of independent rows, if the function has them."""

    def method(read: Callable[..., Tree]) -> Callable[..., Tensor]:
        def alone(x: Tree, *args: Any) -> Tensor:
            return only_tensor(read(x, *args))

        return alone

    return wrapped(read, method)


def neuron_index(index: Any) -> Any:
    """The index of a neuron, checked, where a slice in a tuple stands for a sum."""
    positions: Any = (index,) if isinstance(index, slice) else index
    if _has_slice(positions):
        return _summed(positions)
    return check_index(index)


def split(f: Score, site: SiteLike) -> tuple[Callable[..., Tree], Score]:
    """A score in two parts, before and behind a site.

    Args:
        f: Score.
        site: A `Site`, a module, its dotted name or the name of a `tap`; of a tree of sites none
            may be behind another.

    Returns:
        ``head(x, *args)``, what the site yields, and ``tail(h, x, *args) -> (*batch,)``, the score
        when it yields ``h`` instead: ``tail(head(x), x)`` is ``f(x)``. As long as nothing goes
        around the site, ``tail`` computes only what is behind it.

    Raises:
        AttribValueError: If the score depends on the site through another one of the tree, or ``h``
            has other shapes than what it stands for.
        AttribError: As for `activation`.

    Example:
        >>> import torch, attrib
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> head, tail = split(attrib.target(model, 1), "1")
        >>> x = torch.randn(5, 3)
        >>> tail(torch.zeros_like(head(x)), x).eq(model[2].bias[1]).all()
        tensor(True)
    """
    return _parts(_sites(f, site))


def layer(method: Callable[[Score], Attribute], f: Score, site: SiteLike) -> Attribute:
    """Any method, applied to the part of a score behind a site: attributions to what it yields.

    Args:
        method: From a score to an attribution, e.g. `attrib.saliency` or ``lambda f:
            integrated_gradients(f, steps=20)``.
        f: Score.
        site: As for `split`.

    Returns:
        ``attribute(x, *args)``, a tree like what the site yields; for a method with a baseline
        ``attribute(x, baseline=0, *args)``, where the baseline is one of ``x``, and the site's is
        what it yields there. Integer leaves of ``x`` have no baseline but a given one.

    Raises:
        AttribError: As for `split` and the method.

    Example:
        >>> import torch, attrib
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> f, x = attrib.target(model, 1), torch.randn(5, 3)
        >>> attribution = layer(attrib.integrated_gradients, f, "1")(x)
        >>> torch.allclose(attribution.sum(-1), f(x) - f(torch.zeros_like(x)), atol=1e-5)
        True
    """
    check_callable(method, "method", "pass a method such as attrib.saliency")
    sites = _sites(f, site)
    whole, tail = _parts(sites)
    example = method(tail)
    role = baseline_of(example)

    def on(tail: Score) -> Attribute:
        head = _with_rows_of(tail, whole)

        def applied(h: Tree, x: Tree, *data: Any) -> Tree:
            try:
                return method(_given(tail, x))(h, *data)
            except AttribError as error:
                sites.refuse_unused(error)
                if error.code == "x.dtype":
                    check_floating(h)
                raise

        def plain(x: Tree, *args: Any) -> Tree:
            return applied(head(x, *args), x, *args)

        def from_baseline(x: Tree, baseline: Any = 0, *args: Any) -> Tree:
            check_input(x, gradients=False)
            start = head(_whole_baseline(baseline, x), *args)
            return applied(head(x, *args), x, start, *args)

        def from_baselines(x: Tree, baselines: Tree, *args: Any) -> Tree:
            h = head(x, *args)  # first: afterwards the baselines, of other rows, go no farther
            return applied(h, x, head(baselines, *args), *args)

        return {None: plain, "baseline": from_baseline, "baselines": from_baselines}[role]

    return inherit(tail, on) if isinstance(example, Batched) else on(tail)


def activation_and_gradient(f: Score, site: SiteLike) -> Callable[..., tuple[Tree, Tree]]:
    r"""What sites yield, :math:`h`, and the derivative of the score by it,
    :math:`\partial f / \partial h`, from one forward and one backward pass.

    Of sites behind one another, each gets its whole derivative, what reaches the score through the
    others included.

    Args:
        f: Score.
        site: A `Site`, a module, its dotted name or the name of a `tap`, or a tree of them.

    Returns:
        ``call(x, *args) -> (activation, gradient)``, trees like what the sites yield.

    Raises:
        AttribError: As for `activation` and `attrib.grad_and_score`.

    Example:
        >>> import torch, attrib
        >>> from torch import nn
        >>> model = nn.Sequential(nn.ReLU(), nn.Flatten())
        >>> f = attrib.target(model, lambda h: h.square().sum(-1))
        >>> activation_and_gradient(f, "0")(torch.tensor([[-1.0, 2.0]]))
        (tensor([[0., 2.]]), tensor([[0., 4.]]))
    """
    sites = _sites(f, site)
    return inherit(sites.f, sites.gradients)


def gradient_x_activation(f: Score, site: SiteLike) -> Attribute:
    r"""Activation times gradient, :math:`h_j\, \partial f / \partial h_j`.

    Args:
        f: Score.
        site: As for `activation_and_gradient`; one backward pass serves all sites.

    Returns:
        ``attribute(x, *args)``, a tree like what the sites yield, in units of the score.

    Raises:
        AttribError: As for `activation_and_gradient`.

    References:
        Shrikumar, Greenside, Shcherbina & Kundaje (2016), https://arxiv.org/abs/1605.01713

    Example:
        >>> import torch, attrib
        >>> from torch import nn
        >>> model = nn.Sequential(nn.ReLU(), nn.Flatten())
        >>> f = attrib.target(model, lambda h: h.square().sum(-1))
        >>> gradient_x_activation(f, "0")(torch.tensor([[-1.0, 2.0]]))
        tensor([[0., 8.]])
    """
    both = activation_and_gradient(f, site)

    def method(both: Callable[..., tuple[Tree, Tree]]) -> Attribute:
        def attribute(x: Tree, *args: Any) -> Tree:
            activation, gradient = both(x, *args)
            return tree_map(torch.mul, gradient, activation)

        return attribute

    return inherit(both, method)


def _sites(f: Score, site: SiteLike) -> Sites:
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    return Sites(f, site)


def _parts(sites: Sites) -> tuple[Callable[..., Tree], Score]:
    """What is before and what is behind."""
    return sites.reading(apart=True), wrapped(sites.f, sites.tail)


def _with_rows_of(tail: Score, head: Callable[..., Tree]) -> Callable[..., Tree]:
    """The part before a site, for the examples that the part behind it is for."""
    if not (isinstance(tail, Batched) and isinstance(head, Batched)):
        return head
    return head.on(Rows(tail.rows.tensors))


def _given(tail: Score, x: Tree) -> Score:
    """``tail(h, x, *args)`` as a function of ``(h, *args)``."""
    if not isinstance(tail, Batched):

        def given(h: Tree, /, *args: Any) -> Tensor:
            return tail(h, x, *args)

        return given
    parts, spec = flatten(x)
    own, places = len(tail.rows.tensors), [i for i, part in enumerate(parts) if part is not None]

    def function(rows: Rows, h: Tree, *args: Any) -> Tensor:
        own_rows = Rows(rows.tensors[:own], rows.length)
        same = unflatten(spec, put(parts, places, rows.tensors[own:]))
        return tail.function(own_rows, h, same, *args)

    def marked(spots: Sequence[Any]) -> Score:
        return _given(tail if tail.marked is None else tail.marked(spots), x)

    rows = Rows((*tail.rows.tensors, *(parts[place] for place in places)))
    return Batched(function, rows, models=tail.models, marked=tail.marked and marked)


def _has_slice(index: Any) -> bool:
    return isinstance(index, tuple) and any(isinstance(part, slice) for part in index)  # pyright: ignore[reportUnknownVariableType]


def _summed(index: tuple[Any, ...]) -> Callable[[Tensor], Tensor]:
    """From what a layer yields to the sum over the slices of an index."""
    sliced = sum(isinstance(position, slice) for position in index)

    def chosen(h: Tensor) -> Tensor:
        if h.ndim - len(index) not in (0, 1):
            raise AttribValueError(
                f"index: must have a position for every dimension behind the batch, got "
                f"{len(index)} for a layer of shape {tuple(h.shape)}",
                code="target.shape",
            )
        return h[(..., *index)].flatten(-sliced).sum(-1)

    return chosen


def _whole_baseline(baseline: Any, x: Tree) -> Tree:
    """A baseline as large as ``x``, with integers where they are given."""
    starts, spec = flatten(check_baseline(baseline, x))
    told = False
    given = leaves_for(x, baseline) or []
    for place, (own, leaf) in enumerate(zip(given, leaves(x), strict=True)):
        if not differentiable(leaf) and isinstance(own, Tensor) and not own.is_floating_point():
            starts[place], told = own, True
    if not (told or any(map(differentiable, leaves(x)))):
        raise AttribValueError(
            f"baseline: missing, got {describe(baseline)} for an x of integers; pass a tree like "
            "x, e.g. the ids of padding tokens",
            code="baseline.missing",
        )
    whole = [b if b is None else b.expand_as(a) for b, a in zip(starts, leaves(x), strict=True)]
    return unflatten(spec, whole)

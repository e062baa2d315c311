"""From a model to a score: one number per example."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from attrib._batched import Batched, Choice, NotRowsError, Rows, stacked
from attrib._checks import check_callable, check_input, describe
from attrib._last_layer import LastLayer
from attrib._map import ChunkSize, check_chunk_size, map_chunks, slices
from attrib._marked import Marked
from attrib._outputs import (
    Caller,
    Index,
    Output,
    check_index,
    check_integer,
    check_mode,
    moody_modules,
    read_output,
    select,
)
from attrib._tree import copied, leaves, tree_map
from attrib.errors import AttribTypeError
from attrib.types import Attribute, Score, Tree

__all__ = [
    "batched",
    "choosing",
    "contrast",
    "log_prob",
    "outputs_of",
    "per_target",
    "prob",
    "target",
]


def target(
    model: Callable[..., Any],
    index: Index = None,
    *,
    output: Output = None,
    stochastic: bool = False,
) -> Score:
    r"""One output of a model as a score, :math:`f(x) = \mathrm{model}(x)_{\mathrm{index}}`.

    A tensor is passed to the model as it is, a tuple or list as positional arguments, a dict as
    keyword arguments; further arguments of the score follow by position. A score made from an
    `nn.Module` is marked `batched`: dimension 0 is taken to be a batch of independent examples, and
    so is that of every further argument which is as long. Give a sequence whose positions are
    scored one by one its batch dimension, ``x[None]``, and close over a tensor that examples share.
    Of the `nn.Linear` at the end of an `nn.Sequential`, a large batch on a CPU computes only the
    output that an integer or a tuple asks for.

    Args:
        model: Module or function.
        index: Which output. ``None`` if the model already returns one number per example,
            ``(batch,)`` or ``(batch, 1)``; an integer, also negative, for outputs ``(batch,
            classes)``; a tuple of integers for the last dimensions of dense outputs ``(batch,
            *dims)``; a LongTensor ``(batch,)`` for one class per example; an integer tensor without
            dimensions, to `vmap` over classes; a function of the output that returns ``(batch,)``.
        output: Where a model that returns a structure keeps its output tensor: a key or attribute,
            a position, or a function. ``None`` takes the tensor, the only tensor, or ``logits``.
        stochastic: Accept active dropout: the score is then a random draw.

    Returns:
        ``f(x, *args) -> (batch,)``; ``()`` for one example without a batch dimension.

    Raises:
        AttribTypeError: For an index or output of another type, or outputs that are not real
            numbers.
        AttribValueError: For an index out of range, outputs that leave more or less than one number
            per example, a structure without a clear output, or a module that is in train mode where
            that makes examples interact or the score random.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(4, 3)
        >>> x = torch.randn(2, 4)
        >>> torch.equal(target(model, -1)(x), model(x)[:, 2])
        True
        >>> each = target(model, torch.tensor([0, 2]))(x)
        >>> torch.equal(each, torch.stack([model(x)[0, 0], model(x)[1, 2]]))
        True
    """
    return _score(model, index, output, stochastic, transform=None)


def prob(
    model: Callable[..., Any],
    index: Index,
    *,
    dim: int = -1,
    output: Output = None,
    stochastic: bool = False,
) -> Score:
    r"""Probability of a class, :math:`\mathrm{softmax}(\mathrm{model}(x))_i`.

    Args:
        model: Module or function that returns logits.
        index: As for `target`.
        dim: The dimension of the classes.
        output: As for `target`.
        stochastic: As for `target`.

    Returns:
        ``f(x, *args) -> (batch,)``, between 0 and 1.

    Raises:
        AttribError: As for `target`.

    Example:
        >>> import torch
        >>> prob(torch.nn.Identity(), 0)(torch.zeros(1, 4))
        tensor([0.2500])
    """
    return _score(model, index, output, stochastic, transform=lambda logits: logits.softmax(dim))


def log_prob(
    model: Callable[..., Any],
    index: Index,
    *,
    dim: int = -1,
    output: Output = None,
    stochastic: bool = False,
) -> Score:
    r"""Log-probability of a class, :math:`\log \mathrm{softmax}(\mathrm{model}(x))_i`.

    Args:
        model: Module or function that returns logits.
        index: As for `target`.
        dim: The dimension of the classes.
        output: As for `target`.
        stochastic: As for `target`.

    Returns:
        ``f(x, *args) -> (batch,)``, at most 0.

    Raises:
        AttribError: As for `target`.

    Example:
        >>> import torch
        >>> log_prob(torch.nn.Identity(), 0)(torch.zeros(1, 4))
        tensor([-1.3863])
    """
    return _score(
        model, index, output, stochastic, transform=lambda logits: logits.log_softmax(dim)
    )


def contrast(f: Score, g: Score) -> Score:
    """Why `f` rather than `g`: the score ``f(x) - g(x)``, batched if both are.

    Example:
        >>> import torch
        >>> model = torch.nn.Identity()
        >>> contrast(target(model, 0), target(model, 1))(torch.tensor([[5.0, 3.0]]))
        tensor([2.])
    """
    check_callable(f, "f", "pass a score")
    check_callable(g, "g", "pass a score")
    if not (isinstance(f, Batched) and isinstance(g, Batched)):
        return lambda x, *args: f(copied(x), *copied(args)) - g(x, *args)  # f may write to x
    own = len(f.rows.tensors)

    def difference(rows: Rows, x: Tree, *args: Any) -> Tensor:
        first, second = Rows(rows.tensors[:own], rows.length), Rows(rows.tensors[own:], rows.length)
        return f.function(first, copied(x), *copied(args)) - g.function(second, x, *args)

    return Batched(
        difference,
        Rows(f.rows.tensors + g.rows.tensors),
        models=f.models + g.models,
        marked=lambda spots: contrast(_marked(f, spots), _marked(g, spots)),
    )


def batched(f: Score, rows: Sequence[Tensor] = ()) -> Score:
    """Promise that dimension 0 of `f` is a batch whose rows do not interact.

    Many points are then evaluated as one large batch, the fastest way there is. Every tensor among
    ``args`` whose dimension 0 has the length of the batch counts as having one entry per row.

    Args:
        f: Score, called as ``f(x, *rows, *args)``.
        rows: Tensors with one entry per row that belong to the score, such as labels or masks. They
            are repeated with the rows; a tensor that `f` closes over is not.

    Returns:
        ``f(x, *args)``, marked.

    Raises:
        AttribTypeError: If `f` is not callable or `rows` is not a sequence of tensors.

    Example:
        >>> import torch
        >>> label = torch.tensor([0, 1])
        >>> f = batched(lambda x, label: x.gather(-1, label[:, None])[:, 0], rows=[label])
        >>> f(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor([1., 4.])
    """
    check_callable(f, "f", "pass a score")
    sequence = isinstance(rows, (list, tuple))
    if not sequence or not all(isinstance(row, Tensor) for row in rows):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise AttribTypeError(
            f"rows: must be a list of tensors, got {describe(rows)}", code="rows.type"
        )

    def function(rows: Rows, x: Tree, *args: Any) -> Tensor:
        return _of_length(f(x, *rows.tensors, *args), rows.length)

    return Batched(function, Rows(tuple(rows)))


def per_target(
    method: Callable[[Score], Attribute],
    model: Callable[..., Any],
    targets: Sequence[int] | Tensor,
    *,
    output: Output = None,
    stochastic: bool = False,
    chunk_size: ChunkSize = None,
) -> Attribute:
    """Attributions for many outputs of one model, from one forward pass where the method allows it.

    It is ``vmap(lambda t: method(target(model, t))(x))(targets)``: what does not depend on the
    target is computed once for all.

    Args:
        method: From a score to an attribution, e.g. `saliency` or ``lambda f:
            integrated_gradients(f, steps=20)``.
        model: Module or function with outputs ``(batch, classes)``.
        targets: Which outputs.
        output: As for `target`.
        stochastic: As for `target`.
        chunk_size: Targets computed at once; each chunk costs one forward pass. ``None`` means all.

    Returns:
        ``attribute(x, *args)``, a tree like that of ``method``, with a leading axis for the
        targets; so have numbers such as the samples of an `Estimate`.

    Raises:
        AttribTypeError: If the targets are not integers.
        AttribError: As for `target` and the method.

    Example:
        >>> import torch, attrib
        >>> model = torch.nn.Linear(4, 3)
        >>> x = torch.randn(2, 4)
        >>> gradients = per_target(attrib.saliency, model, [0, 2])(x)
        >>> torch.allclose(gradients, model.weight[[0, 2], None].expand(2, 2, 4))
        True
    """
    check_callable(method, "method", "pass a method such as attrib.saliency")
    check_callable(model, "model", "pass a module or a function")
    chunk_size = check_chunk_size(chunk_size)
    if not isinstance(targets, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise AttribTypeError(
            f"targets: must be a list of integers, got {type(targets).__name__}",
            code="targets.type",
        )
    indices = (
        targets
        if isinstance(targets, Tensor)
        else torch.tensor([check_integer(t, "targets") for t in targets], device="cpu")
    )
    whole = not (indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool)
    if indices.ndim != 1 or not whole or len(indices) == 0:
        raise AttribTypeError(
            f"targets: must be a list of integers, got {indices.dtype} of shape "
            f"{tuple(indices.shape)}",
            code="targets.type",
        )

    def attribute(x: Tree, *args: Any) -> Tree:
        check_input(x, gradients=False)

        def of(index: Tensor) -> Tree:
            found = method(target(model, index, output=output, stochastic=stochastic))(x, *args)
            return tree_map(lambda v: v if isinstance(v, Tensor) else torch.as_tensor(v), found)

        on_device = indices.to(next(leaf.device for leaf in leaves(x) if leaf is not None))
        kernel = stacked(of, same_draws=True)
        chunks = list(map_chunks(kernel, slices(on_device), chunk_size=chunk_size, like=x))
        if len(chunks) == 1:
            return chunks[0]
        return tree_map(lambda *parts: torch.cat(parts), chunks[0], *chunks[1:])

    return attribute


def _score(
    model: Callable[..., Any],
    index: Index,
    output: Output,
    stochastic: bool,
    transform: Callable[[Tensor], Tensor] | None,
) -> Score:
    check_callable(model, "model", "pass a module or a function")
    chosen: Any = check_index(index)
    if index is None and transform is not None:
        raise AttribTypeError(
            "index: missing, got None; a probability is that of a class: say which",
            code="target.type",
        )
    given: Any = output
    known = given is None or callable(given) or isinstance(given, (str, int))
    if not known or isinstance(given, bool):
        raise AttribTypeError(
            f"output: must be a key, a position or a function, got {type(output).__name__}",
            code="output.type",
        )

    evaluate, last = _evaluating(model, stochastic), None
    single = output is None and transform is None and isinstance(index, (int, tuple))
    one: Any = chosen if single and index != () else None
    if isinstance(model, nn.Module) and one is not None and not stochastic:
        last = LastLayer(model, one, evaluate)
    return choosing(_outputs(model, stochastic, evaluate), chosen, output, transform, last)


def outputs_of(
    model: Callable[..., Any], stochastic: bool, call: Callable[..., Any] | None = None
) -> Callable[..., Any]:
    """What a model returns, as ``outputs(x, *args)``; of independent rows, if it is a module.

    Args:
        model: Module or function.
        stochastic: As for `target`.
        call: What is called in the place of the model.
    """
    return _outputs(model, stochastic, _evaluating(model, stochastic, call))


def _evaluating(
    model: Callable[..., Any], stochastic: bool, call: Callable[..., Any] | None = None
) -> Callable[..., Any]:
    """``evaluate(x, args, instead=None)``, of the model or of what is given in its place."""
    caller, moody = Caller(model, call), moody_modules(model)

    def evaluate(x: Tree, args: tuple[Any, ...], instead: Callable[..., Any] | None = None) -> Any:
        check_mode(moody, stochastic)
        return caller(x, args, instead)

    return evaluate


def _outputs(
    model: Callable[..., Any], stochastic: bool, evaluate: Callable[..., Any]
) -> Callable[..., Any]:
    def outputs(x: Tree, *args: Any) -> Any:
        return evaluate(x, args)

    def of_rows(rows: Rows, x: Tree, *args: Any) -> Any:
        return evaluate(x, args)

    if not isinstance(model, nn.Module):
        return outputs
    return Batched(
        of_rows,
        models=(model,),
        marked=lambda spots: outputs_of(model, stochastic, Marked(model, spots)),
    )


def choosing(
    run: Callable[..., Any],
    index: Index,
    output: Output = None,
    transform: Callable[[Tensor], Tensor] | None = None,
    last: LastLayer | None = None,
) -> Score:
    """One number per example out of what `run` returns, which has independent rows if marked so.

    Args:
        run: The model.
        index: As for `target`.
        output: As for `target`.
        transform: What is made of the outputs before one is chosen.
        last: The last layer of the model, if only one output of it is needed.
    """
    carried = run.rows.tensors if isinstance(run, Batched) else ()

    def read(result: Any) -> Any:
        if callable(index) and output is None and transform is None:
            # The user's own function sees what the model returned, unless told where to look.
            return result
        found = read_output(result, output)
        return found if transform is None else transform(found)

    def outputs(x: Tree, args: tuple[Any, ...], rows: tuple[Tensor, ...] = carried) -> Any:
        return read(
            run.function(Rows(rows), x, *args) if isinstance(run, Batched) else run(x, *args)
        )

    def choose(found: Any, index: Index, x: Tree, length: int | None) -> Tensor:
        score = index(found) if callable(index) else select(found, index, x)
        return _of_length(score, length)

    def of_rows(rows: Rows, x: Tree, *args: Any) -> Tensor:
        own, which = rows.tensors[: len(carried)], rows.tensors[len(carried) :]
        if last is not None and last.worthwhile(x):
            return last.read(x, args, read, partial(choose, x=x, length=rows.length))
        return choose(outputs(x, args, own), which[0] if which else index, x, rows.length)

    if not isinstance(run, Batched):
        return lambda x, *args: choose(outputs(x, args), index, x, None)
    rows, choice, marked = Rows(carried), None, run.marked
    if isinstance(index, Tensor) and index.ndim == 1:
        rows = Rows((*carried, index))
    elif isinstance(index, Tensor):
        choice = Choice(index, outputs, choose)
    return Batched(
        of_rows,
        rows,
        choice,
        run.models,
        marked and (lambda spots: choosing(marked(spots), index, output, transform)),
    )


def _marked(f: Batched, spots: Sequence[Any]) -> Batched:
    return f if f.marked is None else f.marked(spots)


def _of_length(score: Tensor, length: int | None) -> Tensor:
    found: Any = score  # what is no tensor at all is refused later, in words
    if length is None or not isinstance(found, Tensor):
        return score
    if found.ndim == 0 or found.shape[0] != length:
        raise NotRowsError(score.ndim)
    return score

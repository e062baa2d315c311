"""Several methods, several measures, one table."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

import torch
from torch import Tensor

from attrib._batched import baseline_of, called_like, inherit
from attrib._checks import check_callable, check_choice
from attrib._map import scan
from attrib._progress import monitored, report
from attrib.errors import AttribTypeError, AttribValueError, add_note
from attrib.metrics._direction import Direction, better_of
from attrib.metrics._table import Comparison
from attrib.types import Attribute, Measure

__all__ = ["compare"]

Metric: TypeAlias = Callable[[Any], Measure]
"""From an attribution function to a measure."""


def compare(
    methods: Mapping[str, Attribute],
    metrics: Mapping[str, Metric],
    data: Any,
    *,
    better: Mapping[str, Direction] | None = None,
) -> Comparison:
    r"""Measure several methods on the same data: a table of :math:`\bar m \pm s / \sqrt n` over
    the :math:`n` examples.

    A method explains a batch once, however many metrics measure that explanation. Perturbations
    that are made inside of a metric, ``lambda a: infidelity(f, a, attrib.perturb.gaussian(0.1))``,
    are the same for all methods.

    Args:
        methods: Attribution functions by name, the rows of the table.
        metrics: For each column, a function from an attribution function to a measure.
        data: One batch ``(x, *args)``, or an iterable of batches, such as a list or a loader; a
            tensor is a batch without further arguments. Measures are called with it. Where they
            take a baseline it comes second; methods that take none do not get it.
        better: ``"higher"``, ``"lower"`` or ``"zero"`` for measures that do not say it themselves,
            as those of `attrib.metrics` do.

    Returns:
        The table, a `Comparison`: printed, as text, as Markdown, as a dict, or drawn.

    Raises:
        AttribTypeError: If a method or a metric is not a function, or `data` holds no batches.
        AttribValueError: If there are no methods, metrics or batches, if a column has no direction,
            or a measure does not return one number per example.
        Exception: What a method or a metric raises, with a note that names both.

    Example:
        >>> import torch, attrib
        >>> f = lambda x: x @ torch.tensor([1.0, 2.0])
        >>> methods = {"gradient": attrib.saliency(f), "nothing": lambda x: 0 * x}
        >>> columns = {"completeness": lambda a: attrib.metrics.completeness(f, a)}
        >>> compare(methods, columns, (torch.tensor([[1.0, 1.0], [1.0, 1.0]]),))
                  completeness
                  zero is best
        gradient  0 ± 0 *
        nothing   -3 ± 0
        2 examples, mean ± standard error; * marks the best mean
    """
    _check_functions(methods, "methods", "attribution functions, e.g. attrib.saliency(f)")
    _check_functions(metrics, "metrics", "functions, e.g. lambda a: attrib.metrics.deletion(f, a)")
    for name in better or {}:
        check_choice(name, "better", [*metrics])
    memory = _Explained()
    rows = {name: _remembering(method, memory) for name, method in methods.items()}
    cells = [(row, column) for row in methods for column in metrics]
    measures = {cell: _made(cell, rows, metrics) for cell in cells}
    directions: dict[str, Direction] = {
        name: _direction(name, measures, better or {}) for name in metrics
    }
    found: dict[tuple[str, str], list[Tensor]] = {cell: [] for cell in cells}
    batches = 1 if isinstance(data, (Tensor, tuple)) else operator.length_hint(data, 1)

    for number, batch in enumerate(_batches(data)):

        def step(index: int, count: int | None, batch: tuple[Any, ...] = batch) -> int:
            if index % len(metrics) == 0:
                memory.x, memory.made = batch[0], []
            values = _measured(cells[index], measures, batch, count)
            found[cells[index]].append(values)
            return len(values)

        # Progress counts batches if there are many, and cells of the table otherwise.
        with monitored(number, batches) if batches > 1 else nullcontext():
            scan(step, None, len(cells))
        if batches > 1:
            report(number + 1, batches)
    if not found[cells[0]]:
        raise AttribValueError(
            "data: empty, got no batches; pass (x, *args) or a list of such", code="data.empty"
        )
    return Comparison(
        {row: {column: torch.cat(found[row, column]) for column in metrics} for row in methods},
        directions,
    )


@dataclass
class _Explained:
    """The batch at hand, and what one method has made of it.

    Attributes:
        x: What is explained.
        made: Attributions, with the further arguments that they were made with.
    """

    x: Any = None
    made: list[tuple[tuple[Any, ...], Any]] = field(default_factory=list[Any])


def _remembering(attribute: Attribute, memory: _Explained) -> Attribute:
    """The same attribution, called as ``(x, baseline, *args)`` whether or not it takes a baseline,
    and made once of the batch at hand."""
    role = baseline_of(attribute)

    def method(attribute: Attribute) -> Attribute:
        def explained(x: Any, *data: Any) -> Any:
            own = data if role else data[1:]
            if x is not memory.x:
                return attribute(x, *own)
            for key, attribution in memory.made:
                if len(key) == len(own) and all(map(operator.is_, key, own)):
                    return attribution
            attribution = attribute(x, *own)
            memory.made.append((own, attribution))
            return attribution

        return called_like(attribute if role else _with_baseline, explained)

    return inherit(attribute, method)


def _with_baseline(x: Any, baseline: Any = 0, *args: Any) -> Any:
    """How every method is called."""


def _made(
    cell: tuple[str, str], methods: Mapping[str, Attribute], metrics: Mapping[str, Metric]
) -> Measure:
    row, column = cell
    try:
        measure = metrics[column](methods[row])
    except Exception as error:
        add_note(error, f"attrib was making the metric {column!r} of the method {row!r}")
        raise
    hint = f"{column!r} must return a measure, e.g. lambda a: attrib.metrics.deletion(f, a)"
    check_callable(measure, "metrics", hint)
    return measure


def _measured(
    cell: tuple[str, str],
    measures: Mapping[tuple[str, str], Measure],
    batch: tuple[Any, ...],
    count: int | None,
) -> Tensor:
    row, column = cell
    try:
        values: Any = measures[cell](*batch)
    except Exception as error:
        add_note(error, f"attrib was measuring {column!r} of the method {row!r}")
        raise
    if not isinstance(values, Tensor) or count not in (None, values.numel()):
        shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise AttribValueError(
            f"metrics: {column!r} of {row!r} must be one number per example, got {shape} for "
            f"{'a batch' if count is None else f'{count} examples'}; return a tensor (*batch,)",
            code="metrics.shape",
        )
    return values.detach().reshape(-1)


def _direction(
    column: str, measures: Mapping[tuple[str, str], Measure], better: Mapping[str, Any]
) -> Direction:
    stated = [better_of(measure) for (_, name), measure in measures.items() if name == column]
    direction: Any = better.get(column, stated[0])
    if direction is None:
        raise AttribValueError(
            f"better: missing for {column!r}, got a measure that does not say which of its values "
            f'are better; pass better={{{column!r}: "lower"}}, "higher" or "zero"',
            code="better.missing",
        )
    check_choice(direction, "better", ("higher", "lower", "zero"))
    return direction


def _batches(data: Any) -> Iterator[tuple[Any, ...]]:
    batches: Any = [data] if isinstance(data, (Tensor, tuple)) else data
    if isinstance(data, (str, Mapping)) or not hasattr(batches, "__iter__"):
        _refuse_data(data)
    for given in batches:
        if isinstance(given, Tensor):
            yield (given,)
        elif isinstance(given, (tuple, list)) and given:
            yield (*given,)
        else:
            _refuse_data(given)


def _refuse_data(data: Any) -> NoReturn:
    raise AttribTypeError(
        f"data: must be a batch (x, *args) or an iterable of them, got {type(data).__name__}; "
        "wrap an x that is no tensor: (x,)",
        code="data.type",
    )


def _check_functions(given: Any, name: str, hint: str) -> None:
    functions: Any = given
    if not isinstance(given, Mapping):
        raise AttribTypeError(
            f"{name}: must be a mapping from names to {hint}, got {type(given).__name__}",
            code=f"{name}.type",
        )
    if not functions:
        raise AttribValueError(
            f"{name}: empty, got nothing to compare; pass a mapping from names to {hint}",
            code=f"{name}.empty",
        )
    for key, function in functions.items():
        check_callable(function, name, f"{key!r} must be one of {hint}")

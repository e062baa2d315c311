"""Recurrent networks as the loops that they are: linear maps, sigmoids, tanhs and products."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.nn import functional as F

from attrib.errors import AttribValueError

__all__ = ["RECURRENT"]

_Weights = tuple[Any, ...]
# step(input, states, weights) -> states, of which the first is the output.
_Step = Callable[[Tensor, tuple[Tensor, ...], _Weights], tuple[Tensor, ...]]


def _gates(x: Tensor, hidden: Tensor, weights: _Weights) -> tuple[Tensor, Tensor]:
    at_input, at_hidden = weights[:2]
    bias, hidden_bias = (*weights[2:], None, None)[:2]
    return F.linear(x, at_input, bias), F.linear(hidden, at_hidden, hidden_bias)


def _lstm_step(x: Tensor, states: tuple[Tensor, ...], weights: _Weights) -> tuple[Tensor, ...]:
    hidden, cell = states
    projected = hidden.shape[-1] != cell.shape[-1]
    from_input, from_hidden = _gates(x, hidden, weights[:-1] if projected else weights)
    enter, forget, new, leave = (from_input + from_hidden).chunk(4, -1)
    cell = torch.mul(torch.sigmoid(forget), cell) + torch.mul(torch.sigmoid(enter), torch.tanh(new))
    hidden = torch.mul(torch.sigmoid(leave), torch.tanh(cell))
    return F.linear(hidden, weights[-1]) if projected else hidden, cell


def _gru_step(x: Tensor, states: tuple[Tensor, ...], weights: _Weights) -> tuple[Tensor, ...]:
    (hidden,) = states
    from_input, from_hidden = (gates.chunk(3, -1) for gates in _gates(x, hidden, weights))
    reset = torch.sigmoid(from_input[0] + from_hidden[0])
    keep = torch.sigmoid(from_input[1] + from_hidden[1])
    new = torch.tanh(from_input[2] + torch.mul(reset, from_hidden[2]))
    return (new + torch.mul(keep, hidden - new),)


def _rnn_step(
    function: Callable[[Tensor], Tensor], x: Tensor, states: tuple[Tensor, ...], weights: _Weights
) -> tuple[Tensor, ...]:
    from_input, from_hidden = _gates(x, states[0], weights)
    return (function(from_input + from_hidden),)


def _lstm(input: Tensor, states: Any, weights: Any, *options: Any) -> tuple[Tensor, ...]:
    if isinstance(states, Tensor):
        _refuse_packed("lstm")
    output, (hidden, cell) = _unrolled("lstm", _lstm_step, input, states, weights, *options)
    return output, hidden, cell


def _one_state(
    name: str, step: _Step, input: Tensor, state: Tensor, weights: Any, *options: Any
) -> tuple[Tensor, Tensor]:
    if isinstance(weights, Tensor):
        _refuse_packed(name)
    output, (hidden,) = _unrolled(name, step, input, (state,), weights, *options)
    return output, hidden


def _unrolled(
    name: str,
    step: _Step,
    input: Tensor,
    states: Any,
    weights: Any,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Output and last states of all layers and directions, as torch orders them."""
    if train and dropout > 0 and num_layers > 1:
        raise AttribValueError(
            f"{name}: draws a dropout between its layers in training mode, got dropout={dropout}; "
            "call model.eval()",
            code="rules.training",
        )
    directions = 1 + bidirectional
    own = len(weights) // (num_layers * directions)
    last: list[tuple[Tensor, ...]] = []
    rows = input.unbind(1 if batch_first else 0)
    for layer in range(num_layers):
        outputs: list[tuple[Tensor, ...]] = []
        for backwards in range(directions):
            place = layer * directions + backwards
            hidden = tuple(state[place] for state in states)
            steps: list[Tensor] = []
            for row in rows[::-1] if backwards else rows:
                hidden = step(row, hidden, tuple(weights[place * own : (place + 1) * own]))
                steps.append(hidden[0])
            last.append(hidden)
            outputs.append(tuple(steps[::-1] if backwards else steps))
        pairs = zip(*outputs, strict=True)
        rows = tuple(torch.cat(pair, -1) for pair in pairs) if bidirectional else outputs[0]
    return torch.stack(rows, 1 if batch_first else 0), tuple(
        torch.stack(states) for states in zip(*last, strict=True)
    )


def _lstm_cell(input: Tensor, states: Any, *weights: Any, **named: Any) -> tuple[Tensor, ...]:
    return _lstm_step(input, tuple(states), _biased(*weights, **named))


def _cell(step: _Step, input: Tensor, hx: Tensor, *weights: Any, **named: Any) -> Tensor:
    return step(input, (hx,), _biased(*weights, **named))[0]


def _biased(w_ih: Tensor, w_hh: Tensor, b_ih: Any = None, b_hh: Any = None) -> _Weights:
    return w_ih, w_hh, b_ih, b_hh


def _refuse_packed(name: str, *_: Any, **__: Any) -> NoReturn:
    raise AttribValueError(
        f"{name}: packs sequences, whose steps cannot be told apart, got batch_sizes; "
        "pass padded sequences, and read the output at the last step of each",
        code="rules.packed",
    )


_TANH: _Step = partial(_rnn_step, torch.tanh)
_RELU: _Step = partial(_rnn_step, torch.relu)

# By the name that torch calls; every function has its signature.
RECURRENT: dict[str, Callable[..., Any]] = {
    "_pack_padded_sequence": partial(_refuse_packed, "pack_padded_sequence"),
    "lstm": _lstm,
    "gru": partial(_one_state, "gru", _gru_step),
    "rnn_tanh": partial(_one_state, "rnn_tanh", _TANH),
    "rnn_relu": partial(_one_state, "rnn_relu", _RELU),
    "lstm_cell": _lstm_cell,
    "gru_cell": partial(_cell, _gru_step),
    "rnn_tanh_cell": partial(_cell, _TANH),
    "rnn_relu_cell": partial(_cell, _RELU),
}

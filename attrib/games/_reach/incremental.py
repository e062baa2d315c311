"""Games in which few features are hidden, evaluated only where that changes something."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from attrib._deferred import may_be_watched
from attrib._map import chunk_length, out_of_memory
from attrib._outputs import moody_modules
from attrib._transforms import transforming
from attrib._tree import copied, flatten, leaves, unflatten
from attrib.games._covers import kept_by
from attrib.games._reach.hiding import hidden_patch, spans_of
from attrib.games._reach.patches import Chunk, Known, Patch, space_of
from attrib.games._reach.recording import Recording
from attrib.games._reach.tape import Tape
from attrib.games._reach.work import PRODUCT
from attrib.games.game import Game
from attrib.types import Tree

__all__ = ["incremental"]

_FEWEST, _LOOKED_AT = 8, 32
"""Fewer features are not worth a tape; features by which its cost is judged."""

_WORTH, _LEAST = 0.85, 3e6
"""The part of the cost that may be left, and nanoseconds that are worth a look."""

_WIDER, _PLAYERS, _WIDEST = 10, 16, 2**13
"""So much larger than ``x`` are the results inside of the models that chunks are made for; so many
players of a coalition take as much memory as an entry of ``x`` and what follows from it; and the
entries that count at most, so that large layers have their weights read for several windows."""


def incremental(v: Game) -> Game:
    """The same game, quicker for coalitions without few of the players.

    The evaluation of ``x`` is recorded. Of a coalition only that is computed which the absent
    players can reach, through convolutions, pools and what acts on single entries; what mixes
    everything sees whole tensors. The values are the same but for rounding. A game of which too
    little would be saved, or which cannot be recorded, is returned as it is.
    """
    if not _possible(v):
        return v
    try:
        found = _recorded(v)
    # Whatever a model does with stand-ins: the evaluation of numbers knows better.
    except Exception:
        return v
    return v if found is None else _quicker(v, found)


@dataclass(frozen=True, eq=False)
class _Recorded:
    """The evaluation of ``x``.

    Attributes:
        tape: What was computed.
        known: The leaves of ``x`` that belong to players, by their numbers in the tape.
        places: Where these leaves are.
    """

    tape: Tape
    known: dict[int, Known]
    places: list[int]


def _possible(v: Game) -> bool:
    """Whether the score is that of rows, nobody watches, and there is something to save."""
    parts = [leaf for leaf in leaves(v.x) if leaf is not None]
    # Counted and measured on CPUs alone.
    plain = all(type(leaf) is Tensor and leaf.device.type == "cpu" for leaf in parts)
    if v.rows is None or not plain or v.players < _FEWEST or transforming():
        return False
    modules = [module for model in v.models for module in model.modules()]
    if may_be_watched(modules) or any(map(_is_special, modules)):
        return False
    if any(module.training for model in v.models for _, module in moody_modules(model)):
        return False
    cells = max(space_of(leaf)[-1] ** 2 for leaf in parts)
    weights = [weight for module in modules for weight in module.parameters(recurse=False)]
    products = sum(w.numel() * (cells if w.ndim > 2 else 1) for w in weights if w.ndim > 1)
    return len(v.full) * v.players * products * PRODUCT > _LEAST


def _is_special(module: nn.Module) -> bool:
    """Whether a module is compiled, or hooks of the user see gradients in it."""
    own = vars(module)
    compiled = own.get("_compiled_call_impl") is not None or "_orig_mod" in own["_modules"]
    return bool(compiled or own["_backward_hooks"] or own["_backward_pre_hooks"])


def _recorded(v: Game) -> _Recorded | None:
    """Record the evaluation of ``x``; ``None`` if that is not worth it."""
    parts, spec = flatten(copied(v.x))
    some = torch.linspace(0, v.players - 1, min(v.players, _LOOKED_AT)).round().long()
    present = torch.arange(v.players) != some[:, None, None]
    mode, known, places = Recording(), dict[int, Known](), list[int]()
    given = list(parts)
    for place, (leaf, cover) in enumerate(zip(parts, v.covers, strict=True)):
        if cover is not None:
            slot, given[place] = mode.begin(leaf, spans_of(kept_by(cover, present, 1), leaf))
            known[slot] = Known(leaf)
            places.append(place)
    with mode:
        result = v.rows(unflatten(spec, given)) if v.rows else None
    tape = mode.tape(result)
    if tape is None or tape.value.shape != v.full.shape:
        return None
    together = chunk_length(v.chunk_size, v.players, _like(v, tape))
    worth = tape.work(v.players, together) < _WORTH * v.players * tape.plain
    return _Recorded(tape, known, places) if worth else None


def _quicker(v: Game, found: _Recorded) -> Game:
    """The game that is evaluated by the tape, or as before as soon as that fails."""
    lost: list[Exception] = []

    def evaluate(coalitions: Tensor, baseline: Tree) -> Tensor:
        if not lost:
            try:
                return _played(v, found, coalitions, baseline)
            except Exception as error:
                if out_of_memory(error):
                    raise
                lost.append(error)
        return v.evaluate(coalitions, baseline)

    return replace(v, evaluate=evaluate, like=_like(v, found.tape))


def _like(v: Game, tape: Tape) -> Tensor:
    """A tensor as large as what counts of one coalition."""
    size = max(1, tape.entries // len(v.full) // _WIDER, v.players // _PLAYERS)
    return v.full.new_zeros(()).expand(len(v.full), min(size, _WIDEST))


def _played(v: Game, found: _Recorded, coalitions: Tensor, baseline: Tree) -> Tensor:
    """The scores of coalitions."""
    if coalitions.ndim == 2:
        coalitions = coalitions[:, None]
    chunk, others = Chunk(len(coalitions), len(v.full)), leaves(baseline)
    patches: dict[int, Patch] = {}
    changed: Tensor = torch.zeros(chunk, dtype=torch.bool)
    for (slot, known), place in zip(found.known.items(), found.places, strict=True):
        cover: Any = v.covers[place]
        kept = kept_by(cover, coalitions, 1)
        patches[slot], rows = hidden_patch(known, kept, others[place], chunk)
        changed = changed | rows.reshape(chunk)
    values = found.tape.played(chunk, patches)
    # What changes nothing leaves the score as it is, to the last bit.
    return torch.where(changed, values, found.tape.value)

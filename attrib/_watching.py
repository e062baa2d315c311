"""One evaluation of a score with an eye on its sites, and what must be true of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor, nn

from attrib._batched import Batched, NotRowsError
from attrib._checks import check_score
from attrib._outputs import in_some_layout, insists_on_layout, wants_channels_last
from attrib._sites import Spot, refuse_calls, refuse_missing
from attrib._taps import Place, Tapping
from attrib._tree import copied, differentiable, leaves, tree_map
from attrib.errors import AttribTypeError, AttribValueError, add_note
from attrib.types import Score, Tree

__all__ = ["Watch", "check_floating"]

_Result = TypeVar("_Result")

Change = Callable[[Spot, Place, Tensor], Tensor]
"""``change(spot, place, tensor)``, what goes on from a site in the place of the tensor."""


class Watch:
    """Sites that were found in the models of a score.

    Args:
        models: The models.
        spots: The sites.

    Attributes:
        channels_last: Whether what is put in should be laid out like that.
    """

    def __init__(self, models: tuple[nn.Module, ...], spots: list[Spot]) -> None:
        self.models = models
        self.spots = spots
        self.channels_last = any(map(wants_channels_last, models))
        self._by_key = {spot.key: spot for spot in spots}

    def tapping(self, change: Change, codes: dict[str, list[str]] | None = None) -> Tapping:
        """While it is active, what passes the sites is changed; see `Tapping`."""
        return Tapping(
            list(self._by_key),
            lambda place, tensor: change(self._by_key[place.name], place, tensor),
            codes,
        )

    def evaluate(self, f: Score, x: Tree, args: tuple[Any, ...], tapping: Tapping) -> Any:
        """The score, of copies that it may write to."""
        try:
            with tapping:
                return f(copied(x), *copied(args))
        except Exception as error:
            add_note(error, "attrib was evaluating the score, with an eye on its sites")
            raise

    def in_layout(self, run: Callable[[], _Result]) -> _Result:
        """What a function of no arguments returns, in a layout that the models accept."""

        def attempt() -> _Result:
            try:
                return run()
            except RuntimeError as error:
                if insists_on_layout(error):
                    self.channels_last = False
                raise

        return in_some_layout(attempt, len(self.models))

    def check(self, tapping: Tapping) -> None:
        """Refuse a site that was not reached, or several times."""
        for spot in self.spots:
            calls, asked = len(tapping.codes[spot.key]), spot.site.call
            if calls == 0:
                refuse_missing(spot, self.models, tapping.others)
            if (asked is None and calls > 1) or (isinstance(asked, int) and asked >= calls):
                refuse_calls(spot, calls, self.models)

    def check_examples(self, values: Tree, score: Any) -> None:
        """Refuse what does not have the examples in front, in words that tell what to do."""
        batch: Any = getattr(score, "shape", ())
        # Integers beside them, such as positions, may be shared by all examples.
        shapes = [leaf.shape for leaf in leaves(values) if differentiable(leaf)]
        for shape in shapes if len(batch) == 1 else []:
            if shape[:1] != batch:
                raise AttribValueError(
                    f"site: the examples are not in the first dimension, got {tuple(shape)} for "
                    f"{batch[0]} of them; say where they are with Site(..., batch_dim=1), and "
                    "choose one tensor of several with leaf=",
                    code="site.batch",
                )

    def check_score(self, score: Any, values: Tree, x: Tree) -> None:
        """Refuse a score that is not one number per example of what the sites yield.

        That may be one number per example as well, if ``x`` tells how many there are.
        """
        batch: Any = getattr(score, "shape", ())
        told = any(
            leaf.ndim > len(batch) and leaf.shape[: len(batch)] == batch
            for leaf in leaves(x)
            if leaf is not None
        )
        check_score(score, tree_map(lambda v: v.unsqueeze(-1), values) if told else values)

    def rows_checked(self, f: Score, values: Tree) -> Tree:
        """The same values; refused if they do not have the rows of the score."""
        length = f.rows.length if isinstance(f, Batched) else None
        shapes = [leaf.shape for leaf in leaves(values) if leaf is not None]
        if length is not None and any(shape[:1] != (length,) for shape in shapes):
            raise NotRowsError
        return values


def check_floating(values: Tree) -> None:
    """Refuse a site that has nothing to differentiate by."""
    parts = [leaf for leaf in leaves(values) if leaf is not None]
    if not any(map(differentiable, parts)):
        dtypes = ", ".join(sorted({str(part.dtype) for part in parts})) or "no tensor"
        raise AttribTypeError(
            f"site: nothing to differentiate, got {dtypes}; take a site of floating-point numbers, "
            "e.g. the output of the embedding instead of its input",
            code="site.dtype",
        )

"""Two runs of a model: what passes some sites in both, and derivatives on the line between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils import _pytree as pytree

from attrib._batched import Batched, inherit, stacked
from attrib._checks import (
    check_baseline,
    check_callable,
    check_input,
    describe,
)
from attrib._inside import Sites
from attrib._map import ChunkSize
from attrib._marking import marked
from attrib._outputs import in_some_layout
from attrib._paths import integral, traverse
from attrib._quadrature import Rule, check_rule
from attrib._sites import Site, SiteLike, Spot
from attrib._taps import Place, Tapping
from attrib._tree import differentiable, leaves, tree_map
from attrib.errors import AttribTypeError, AttribValueError
from attrib.types import Score, Tree

__all__ = [
    "Course",
    "Line",
    "Ways",
    "check_alike",
    "check_corrupted",
    "check_line",
    "ways_into",
]


def check_line(f: Score, steps: int, quadrature: str) -> Rule:
    """The points of a line and their weights."""
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    return check_rule(quadrature, steps)


def check_corrupted(corrupted: Tree, x: Tree) -> Tree:
    """The other input, as large as ``x``."""
    check_input(x, gradients=False)
    whole = check_baseline(corrupted, x, "corrupted", integers=True)
    return tree_map(lambda a, c: c.expand_as(a), x, whole)


def check_alike(one: Tree, another: Tree) -> None:
    """Refuse runs in which a site yields different shapes."""
    shapes = [[getattr(leaf, "shape", None) for leaf in leaves(h)] for h in (one, another)]
    if shapes[0] != shapes[1]:
        raise AttribValueError(
            f"corrupted: a site yields another shape than for x, got {describe(another)} and "
            f"{describe(one)}; patching takes inputs of one length",
            code="patching.shape",
        )


class Ways(NamedTuple):
    """Places in a score.

    Attributes:
        score: The score, in which they are all marked.
        sites: What is read, and differentiated by.
        labels: Where the sites are noted when they are passed; nothing if nobody asks.
        head: What is read where a line is drawn; ``None`` if that is the input.
        start: The same place, where something else is put in.
    """

    score: Score
    sites: Sites
    labels: list[Site]
    head: Sites | None = None
    start: tuple[Site, Sites] | None = None


def ways_into(f: Score, parts: list[Any], along: SiteLike | None, *, ordered: bool) -> Ways:
    """A score with marks at its sites, and at the place where a line is drawn."""
    if along is None and not ordered:
        sites = Sites(f, parts)
        return Ways(sites.f, sites, [])
    if along is None:
        score, spots = marked(f, parts)
        sites = Sites(score, parts)
        return Ways(sites.f, sites, _labels(spots))
    if pytree.tree_structure(along) != pytree.tree_structure(0):
        raise AttribTypeError(
            f"along: must be one site, got {describe(along)}; pass a module, its dotted name, or "
            "the name of a tap",
            code="along.type",
        )
    # A site may be where the line is drawn: then it must be passed second. Copies of a model pass
    # marks in the order in which they were made, hooks for a closure in the opposite one.
    if isinstance(f, Batched) and f.marked is not None:
        head = Sites(f, along)
        score, spots = marked(head.f, [along, *parts])
        sites = Sites(score, parts)
        score = sites.f
    else:
        sites = Sites(f, parts)
        score, spots = marked(sites.f, [along, *parts])
        head = Sites(score, along)
        score = head.f
    begin, *labels = _labels(spots)
    # Others want to see every evaluation of what is behind it: none may be tried out.
    bare = replace(score, models=()) if isinstance(score, Batched) else score
    return Ways(score, sites, labels, head, (begin, Sites(bare, begin)))


def _labels(spots: Sequence[Spot]) -> list[Site]:
    """Marked places, by the labels of their marks."""
    return [replace(spot.site, where=spot.key, of="output", leaf=None) for spot in spots]


class Line(NamedTuple):
    """The straight line between two runs.

    Attributes:
        ways: The places in the score.
        score: The score, perhaps of other rows.
        rule: The points at which derivatives are taken.
        chunk_size: Points evaluated at once.
        first: The first of the sites by which derivatives are of interest.
    """

    ways: Ways
    score: Score
    rule: Rule
    chunk_size: ChunkSize
    first: int = 0

    def ends_and_slope(
        self, x: Tree, corrupted: Tree, args: tuple[Any, ...]
    ) -> tuple[list[Any], list[Any], list[Any]]:
        """What the sites yield at both ends, and the mean derivative of the score by it."""
        corrupted, sites = check_corrupted(corrupted, x), self.ways.sites
        read: Callable[..., Any] = sites.reading(self.score)
        clean: Any
        slope: Any
        if self.rule == ((0.0,), (1.0,)):  # the derivative where the line begins
            clean, slope = inherit(self.score, sites.gradients)(x, *args)
        else:
            clean, slope = read(x, *args), self.mean_slope(x, corrupted, args)
        other = read(corrupted, *args)
        for one, another in zip(clean, other, strict=True):
            check_alike(one, another)
        return clean, other, slope

    def mean_slope(self, x: Tree, corrupted: Tree, args: tuple[Any, ...]) -> Tree:
        """The derivative of the score by what the sites yield, averaged over the line."""
        score, begin, end = self.score, x, corrupted
        head, start, course = self.ways.head, self.ways.start, None
        if head is not None and start is not None:
            course = Course([start[0], *self.ways.labels[self.first :]])
            read = head.reading(score)
            begin, end = read(x, *args), read(corrupted, *args)
            check_alike(begin, end)
            score, args = inherit(inherit(score, course.noted), start[1].tail), (x, *args)
        _check_between(begin)
        # Integers have no points in between; theirs are those of x.
        end = tree_map(lambda a, b: b if differentiable(a) else a, begin, end)
        line = traverse(None, end, begin)
        slopes = stacked(inherit(score, self.ways.sites.gradients), *args)
        found = integral(
            lambda alpha: slopes(line.at(alpha)[0])[1], self.rule, begin, self.chunk_size
        )
        if course is not None and not all(course.after(1)[0]):
            raise AttribValueError(
                "along: must be before the sites, got one that is passed earlier, or the same tap; "
                "draw the line further in front",
                code="along.behind",
            )
        return found


class Course:
    """In which order some places are passed, and how many batch dimensions the score has."""

    def __init__(self, labels: list[Site]) -> None:
        self.labels = labels
        self.passed: list[tuple[str, Any]] = []
        self.dims = 0

    def noted(self, score: Score) -> Score:
        """The score, whose last whole evaluation is noted."""

        def noting(x: Tree, *args: Any) -> Tensor:
            def run() -> Tensor:
                passed: list[tuple[str, Any]] = []

                def note(place: Place, tensor: Tensor) -> Tensor:
                    passed.append((place.name, place.call))
                    return tensor

                with Tapping([str(label.where) for label in self.labels], note):
                    result = score(x, *args)
                self.passed, self.dims = passed, result.ndim
                return result

            return in_some_layout(run)

        return noting

    def after(self, split: int) -> list[list[bool]]:
        """Of each of the places before the split, which of the others are passed after it."""
        calls = [site.call if isinstance(site.call, int) else 0 for site in self.labels]
        places = zip([str(site.where) for site in self.labels], calls, strict=True)
        order = [self.passed.index(place) for place in places]
        return [[s < d for d in order[split:]] for s in order[:split]]


def _check_between(begin: Tree) -> None:
    if not any(map(differentiable, leaves(begin))):
        raise AttribTypeError(
            f"along: missing, got integers {describe(begin)}, which have no points in between; "
            "pass the site that embeds them, e.g. along=model.get_input_embeddings()",
            code="along.missing",
        )

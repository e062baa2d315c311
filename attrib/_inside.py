"""Evaluating a score while what passes some sites is read, replaced or differentiated."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from attrib._batched import Batched, NotRowsError
from attrib._carriers import Overridden
from attrib._checks import check_finite, check_input, describe
from attrib._deferred import Deferring, may_be_watched
from attrib._marking import marked, wrapped
from attrib._outputs import with_channels_last
from attrib._passed import Passed
from attrib._sites import SiteLike, Spot, refuse_unused
from attrib._taps import Place
from attrib._transforms import compiling, concrete, differentiated_outside, transforming
from attrib._tree import differentiable, leaves, tree_map
from attrib._watching import Watch, check_floating
from attrib.errors import AttribError, AttribValueError
from attrib.gradient import grad_and_score
from attrib.types import Score, Tree

__all__ = ["Sites"]


class Sites:
    """Places in a score, or in any other function of a model.

    Args:
        f: The score.
        site: A site, or a tree of them.

    Attributes:
        f: The score, which marks what passes there.
    """

    def __init__(self, f: Score, site: SiteLike) -> None:
        if isinstance(f, Overridden):
            raise AttribValueError(
                "f: an overridden score cannot be split, got override(f, rules); split f, and give "
                "the method the rules: layer(lambda f: saliency(override(f, rules)), f, site)",
                code="override.called",
            )
        models = f.models if isinstance(f, Batched) else ()
        self.f, spots = marked(f, site)
        self._watch = Watch(models, spots)
        self._modules = [part for model in models for part in model.modules()]
        self._spec = pytree.tree_structure(site)
        self._once: Any = None
        self._known: dict[Any, Any] = {}
        self._may_defer = bool(models)
        self._apart = len(spots) == 1 and spots[0].site.call != "all"

    def reading(self, f: Score | None = None, *, apart: bool = False) -> Callable[..., Tree]:
        """``read(x, *args)``, what passes the sites.

        Args:
            f: The marked score, perhaps of other rows.
            apart: Refuse sites of which one is behind another.
        """

        def method(f: Score) -> Callable[..., Tree]:
            def read(x: Tree, *args: Any) -> Tree:
                check_input(x, gradients=False)
                if apart:
                    self._check_apart(f, x, args)
                return self._read(f, x, args)

            return read

        return wrapped(self.f if f is None else f, method)

    def tail(self, f: Score) -> Score:
        """``tail(h, x, *args)``, the score when the sites yield ``h``."""

        def score(h: Tree, x: Tree, *args: Any) -> Tensor:
            if self._may_defer and not (compiling() or may_be_watched(self._modules)):
                found = self._deferred(f, h, x, args)
                if found is not None:
                    return found
                self._may_defer = False
            return self._watch.in_layout(partial(self._replaced, f, h, x, args))

        return score

    def gradients(self, f: Score) -> Callable[..., tuple[Tree, Tree]]:
        """``call(x, *args)``: what the sites yield, and the derivative of the score by it."""

        def call(x: Tree, *args: Any) -> tuple[Tree, Tree]:
            check_input(x, gradients=False)
            if not differentiated_outside():
                return self._by_autograd(f, x, args)
            values = self._read(f, x, args, differentiated=True)
            # One more dimension: a layer may yield one number per example.
            still = tree_map(
                lambda v: torch.zeros_like(v).unsqueeze(-1) if differentiable(v) else None, values
            )

            def shifted(shift: Tree, x: Tree, /, *args: Any) -> Tensor:
                shift = tree_map(lambda s: s.squeeze(-1), shift)
                return self._watch.in_layout(lambda: self._shifted(f, shift, x, args))

            try:
                slopes = grad_and_score(shifted)(still, x, *args)[0]
                return values, tree_map(lambda g: g.squeeze(-1), slopes)
            except AttribError as error:
                self.refuse_unused(error)
                raise

        return call

    def refuse_unused(self, error: AttribError) -> None:
        """If a score was refused because it depends on nothing here, say of which sites."""
        if error.code == "score.independent":
            refuse_unused(self._watch.spots, self._watch.models)

    def weighted(self, f: Score) -> Callable[..., Tree]:
        """``call(x, *args)``: what the sites yield, times the derivative of the score by it, which
        is a constant for all derivatives by ``x``."""

        def call(x: Tree, *args: Any) -> Tree:
            if transforming():
                still = tree_map(Tensor.detach, x)
                values = self._read(f, x, args, differentiated=True)
                gradients = self.gradients(f)(still, *args)[1]
            else:
                values, gradients = self._by_autograd(f, x, args, attached=True)
            return tree_map(torch.mul, gradients, values)

        return call

    def _read(
        self, f: Score, x: Tree, args: tuple[Any, ...], *, differentiated: bool = False
    ) -> Tree:
        return self._watch.in_layout(lambda: self._read_once(f, x, args, differentiated))

    def _read_once(self, f: Score, x: Tree, args: tuple[Any, ...], differentiated: bool) -> Tree:
        # How many calls there are does not depend on how many examples there are.
        shapes = [leaf.shape[1:] for leaf in leaves(x) if leaf is not None]
        asked = [spot.site.call for spot in self._watch.spots]
        length = f.rows.length if isinstance(f, Batched) else None
        # To a length of -1, the score must answer how many dimensions it has.
        may_stop = (
            not compiling()
            and length != -1
            and all(
                isinstance(call, int) or (call is None and self._once == shapes) for call in asked
            )
        )
        passed = Passed(self._watch.spots)
        codes: dict[str, list[str]] = {}

        def record(spot: Spot, place: Place, tensor: Tensor) -> Tensor:
            # A copy: an operation that follows may write to the tensor.
            passed.add(spot, place, tensor.clone())
            if may_stop and passed.all_there(codes):
                raise _Stop
            return tensor

        tapping = self._watch.tapping(record, codes)
        score: Any = None
        with suppress(_Stop):
            score = self._watch.evaluate(f, x, args, tapping)
        self._watch.check(tapping)
        if max(map(len, codes.values())) == 1:
            self._once = shapes
        values = self._spec.unflatten(passed.trees(codes))
        if differentiated:
            check_floating(values)
            self._watch.check_examples(values, score)
        return self._watch.rows_checked(f, values)

    def _check_apart(self, f: Score, x: Tree, args: tuple[Any, ...]) -> None:
        """Refuse sites of which one is behind another: replaced, it would hide the other.

        Nothing passes the first ones but NaN, which must not arrive at any other.
        """
        if self._apart or not all(concrete(leaf) for leaf in leaves(x) if leaf is not None):
            return
        arrived: list[Spot] = []

        def poison(spot: Spot, place: Place, tensor: Tensor) -> Tensor:
            if not (tensor.is_floating_point() and spot.wants(place.call)):
                return tensor
            if bool(tensor.isnan().all()):
                arrived.append(spot)
            return torch.full_like(tensor, torch.nan)

        with torch.no_grad():
            try:
                self._watch.evaluate(f, x, args, self._watch.tapping(poison))
            except Exception:
                return  # a model may look at its numbers
        for spot in arrived:
            raise AttribValueError(
                f"site: one is behind another, got {spot.site}, which what another one yields "
                "reaches: replaced, it would hide that one; ask for each alone, or for "
                "attrib.activation_and_gradient, which serves both at once",
                code="site.behind",
            )
        self._apart = True

    def _by_autograd(
        self, f: Score, x: Tree, args: tuple[Any, ...], *, attached: bool = False
    ) -> tuple[Tree, Tree]:
        return self._watch.in_layout(lambda: self._differentiated_once(f, x, args, attached))

    def _differentiated_once(
        self, f: Score, x: Tree, args: tuple[Any, ...], attached: bool
    ) -> tuple[Tree, Tree]:
        values, variables = Passed(self._watch.spots), Passed(self._watch.spots)
        found: list[Tensor] = []

        def differentiate(spot: Spot, place: Place, tensor: Tensor) -> Tensor:
            values.add(spot, place, (tensor if attached else tensor.detach()).clone())
            if tensor.is_floating_point() and spot.wants(place.call):
                if found and tensor.requires_grad:
                    # A variable of its own: the same tensor may pass other sites too.
                    tensor = tensor.view_as(tensor)
                else:
                    # What leads to the first site takes no part in the backward pass.
                    tensor = tensor.detach().requires_grad_()
                found.append(tensor)
                variables.add(spot, place, tensor)
                return tensor.clone()
            variables.add(spot, place, tensor)
            return tensor

        tapping = self._watch.tapping(differentiate)
        with torch.enable_grad():
            score = self._watch.evaluate(f, x, args, tapping)
            self._watch.check(tapping)
            shown = self._spec.unflatten(values.trees(tapping.codes))
            check_floating(shown)
            self._watch.check_examples(shown, score)
            self._watch.rows_checked(f, shown)
            self._watch.check_score(score, shown, x)
            total = score.sum()
        pulled: list[Any] = [None] * len(found)
        if total.requires_grad and found:
            pulled = list(
                torch.autograd.grad(total, found, allow_unused=True, retain_graph=attached)
            )
        if all(gradient is None for gradient in pulled):
            refuse_unused(self._watch.spots, self._watch.models)
        whole = [
            torch.zeros_like(t) if g is None else g for t, g in zip(found, pulled, strict=True)
        ]
        gradient_of = dict(zip(map(id, found), check_finite(whole, score), strict=True))
        gradients = variables.trees(tapping.codes, lambda tensor: gradient_of.get(id(tensor)))
        return shown, self._spec.unflatten(gradients)

    def _deferred(self, f: Score, h: Tree, x: Tree, args: tuple[Any, ...]) -> Tensor | None:
        """The score when the sites yield ``h``, without computing what leads there, if possible."""
        device = next(leaf.device for leaf in leaves(x) if leaf is not None)
        deferring = Deferring(device, self._known)
        try:
            found = self._watch.in_layout(
                lambda: self._replaced(f, h, deferring.deferred(x), args, deferring)
            )
        except (NotRowsError, torch.OutOfMemoryError):
            raise
        except Exception:
            return None  # it comes again, if it has another reason
        if found.is_meta:
            refuse_unused(self._watch.spots, self._watch.models)
        # What code outside of the model collects must have numbers from now on.
        return None if deferring.leaked() else found

    def _replaced(
        self,
        f: Score,
        h: Tree,
        x: Tree,
        args: tuple[Any, ...],
        deferring: Deferring | None = None,
    ) -> Tensor:
        given = self._given(h)

        def replace(spot: Spot, place: Place, tensor: Tensor) -> Tensor:
            if deferring is not None:
                deferring.reached = True
            if not spot.wants(place.call):
                return tensor
            new = next(given[spot.key], None)
            if new is None:
                self._refuse_values(h)
            new = spot.as_passed(new)
            if new.shape != tensor.shape:
                if isinstance(f, Batched) and f.rows.length is not None:
                    raise NotRowsError
                raise AttribValueError(
                    f"h: has another shape than what {spot.site} yields, got {tuple(new.shape)}; "
                    f"expected {tuple(tensor.shape)}",
                    code="site.value",
                )
            laid_out = with_channels_last(new) if self._watch.channels_last else new
            return new.clone() if laid_out is new else laid_out

        tapping = self._watch.tapping(replace)
        if deferring is not None:
            tapping = deferring.watching(tapping)
        result = self._watch.evaluate(f, x, args, tapping)
        self._watch.check(tapping)
        if any(next(rest, None) is not None for rest in given.values()):
            self._refuse_values(h)
        self._watch.check_examples(h, result)
        return result

    def _shifted(self, f: Score, shift: Tree, x: Tree, args: tuple[Any, ...]) -> Tensor:
        """The score when something is added to what passes."""
        given = self._given(shift)

        def add(spot: Spot, place: Place, tensor: Tensor) -> Tensor:
            if not (spot.wants(place.call) and tensor.is_floating_point()):
                return tensor
            return tensor + spot.as_passed(next(given[spot.key]))

        score = self._watch.evaluate(f, x, args, self._watch.tapping(add))
        self._watch.check_examples(shift, score)
        self._watch.check_score(score, shift, x)
        return score

    def _given(self, h: Tree) -> dict[str, Any]:
        """What is to stand at every site, in the order in which it is asked for."""
        try:
            parts = self._spec.flatten_up_to(h)
        except ValueError:
            self._refuse_values(h)
        return {
            spot.key: iter([leaf for leaf in leaves(part) if leaf is not None])
            for spot, part in zip(self._watch.spots, parts, strict=True)
        }

    def _refuse_values(self, h: Tree) -> NoReturn:
        names = ", ".join(str(spot.site) for spot in self._watch.spots)
        raise AttribValueError(
            f"h: must be like what the sites yield ({names}), got {describe(h)}; see head(x)",
            code="site.value",
        )


class _Stop(BaseException):
    """All that was asked for has been read. No model that catches its errors catches this one."""

"""Random perturbations of an input, x -> x'."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attrib._checks import check_like, check_number
from attrib._map import Points, draws
from attrib._transforms import compiling, mapped, transforming
from attrib._tree import differentiable, flatten, leaves, leaves_for, tree_map, unflatten
from attrib.errors import AttribTypeError, AttribValueError
from attrib.types import Perturb, Tree

__all__ = [
    "Noise",
    "Perturbed",
    "Stream",
    "check_scale",
    "drawn",
    "fork",
    "gaussian",
    "uniform",
]


class Stream:
    """Random numbers that leave torch's global state alone.

    Without a generator it goes on from a copy of the global generator of each device:
    `torch.manual_seed` decides the draws, and drawing does not advance the global state. While a
    compiler traces, which knows no generators, the global generator itself is used.

    Args:
        generator: Where the numbers come from, on the device where they are needed.

    Raises:
        AttribTypeError: If the generator is not one.
    """

    def __init__(self, generator: torch.Generator | None) -> None:
        if generator is not None and not isinstance(generator, torch.Generator):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise AttribTypeError(
                f"generator: must be a torch.Generator, got {type(generator).__name__}; pass "
                "torch.Generator(device).manual_seed(0)",
                code="generator.type",
            )
        self._generator = generator
        self._copies: dict[torch.device, torch.Generator] = {}

    def on(self, device: torch.device) -> torch.Generator | None:
        """The generator to pass to torch for a draw on a device."""
        if self._generator is None:
            if compiling():
                return None
            if device not in self._copies:
                self._copies[device] = _copy_of_global(device)
            return self._copies[device]
        if self._generator.device.type != device.type:
            raise AttribValueError(
                f"generator: on {self._generator.device}, got x on {device}; pass "
                f"torch.Generator({str(device)!r})",
                code="generator.device",
            )
        return self._generator


def fork(generator: torch.Generator | None) -> torch.Generator | None:
    """A generator for one call, seeded by a single draw.

    Two computations that share a generator then draw the same numbers however they are chunked.
    """
    if generator is None or compiling():
        return generator
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    if mapped(seed):
        return generator
    return torch.Generator(generator.device).manual_seed(int(seed))


class Perturbed(NamedTuple):
    """What a perturbation returns that says itself how much it has changed.

    Attributes:
        x: The perturbed input, a tree like ``x``.
        change: The perturbation :math:`I`, a tensor or a tree of tensors that broadcast to those of
            the attribution.
    """

    x: Tree
    change: Tree


@dataclass(frozen=True)
class Noise:
    """Adds independent noise to every entry: one draw, or several as one after another.

    Attributes:
        draw: ``draw(shape, generator=, dtype=, device=)``, noise of scale one.
        fill: ``fill(tensor, generator)``, the same numbers in the place of those of a tensor.
        stream: Where they come from.
        scale: A number, or a tree of numbers like ``x``.
        name: What the scale is called.
    """

    draw: Callable[..., Tensor]
    fill: Callable[[Tensor, torch.Generator | None], Tensor]
    stream: Stream
    scale: Any
    name: str

    def __call__(self, x: Tree, /) -> Tree:
        return tree_map(lambda leaf: leaf[0], self.about(x)(1))

    def about(self, x: Tree) -> Callable[..., Tree]:
        """``several(samples, after_x=False)``, a tree like ``x`` with draws stacked on a leading
        axis, perhaps with ``x`` itself in front of them."""
        (parts, spec), scales = flatten(x), leaves_for(x, self.scale)
        if scales is None:
            raise AttribValueError(
                f"{self.name}: structure differs from that of x, got {len(leaves(self.scale))} "
                f"numbers; pass one number, or a tree of {len(parts)} numbers like x",
                code=f"{self.name}.structure",
            )
        amounts = [
            check_number(scale, self.name) if differentiable(leaf) else None
            for leaf, scale in zip(parts, scales, strict=True)
        ]
        noisy = [leaf for leaf in parts if differentiable(leaf)]
        sources = [self.stream.on(leaf.device) for leaf in noisy]

        def drawn(leaf: Tensor, source: torch.Generator | None) -> Tensor:
            return self.draw(leaf.shape, generator=source, dtype=leaf.dtype, device=leaf.device)

        def several(samples: int, after_x: bool = False) -> Tree:
            if transforming():  # which may want other numbers for each of the examples it maps over
                each = [list(map(drawn, noisy, sources)) for _ in range(samples)]
                if after_x:
                    each.insert(0, [torch.full_like(leaf, -0.0) for leaf in noisy])
                noises = list(map(torch.stack, zip(*each, strict=True)))
            else:
                noises = [leaf.new_empty((samples + after_x, *leaf.shape)) for leaf in noisy]
                for noise in noises if after_x else ():
                    noise[0].fill_(-0.0)  # which leaves zeros of both signs as they are
                for place in range(int(after_x), samples + after_x):
                    for noise, source in zip(noises, sources, strict=True):
                        self.fill(noise[place], source)
            waiting = iter(noises)

            def perturbed(leaf: Any, amount: float | None) -> Any:
                if amount is not None:
                    return torch.add(leaf, next(waiting), alpha=amount)
                return None if leaf is None else torch.stack([leaf] * (samples + after_x))

            return unflatten(spec, list(map(perturbed, parts, amounts)))

        return several


def _fill_normal(noise: Tensor, source: torch.Generator | None) -> Tensor:
    return noise.normal_(generator=source)


def _fill_box(noise: Tensor, source: torch.Generator | None) -> Tensor:
    if noise.itemsize < 4:
        return noise.uniform_(generator=source).mul_(2).sub_(1)
    return noise.uniform_(-1, 1, generator=source)  # no rounding: the same numbers


def _box(shape: torch.Size, **kind: Any) -> Tensor:
    return torch.rand(shape, **kind).mul_(2).sub_(1)


def gaussian(std: Any, *, generator: torch.Generator | None = None) -> Perturb:
    r"""Add independent normal noise of standard deviation `std`, :math:`x' = x + \varepsilon`.

    Args:
        std: Standard deviation in units of ``x``: a number, or a tree of numbers like ``x``.
        generator: Source of randomness; without one, a copy of the global generator as it is now.

    Returns:
        ``perturb(x)``: a new tree like ``x``, another draw at every call. Integer leaves stay.

    Raises:
        AttribError: If `std` is negative, not finite, or structured differently from ``x``.

    Example:
        >>> import torch
        >>> perturb = gaussian(0.1, generator=torch.Generator().manual_seed(0))
        >>> perturb(torch.zeros(2)).shape
        torch.Size([2])
    """
    check_scale(std, "std")
    return Noise(torch.randn, _fill_normal, Stream(generator), std, "std")


def uniform(radius: Any, *, generator: torch.Generator | None = None) -> Perturb:
    r"""Add independent noise, uniform in :math:`[-r, r]`, :math:`x' = x + \varepsilon`.

    Args:
        radius: Half the width of the box in units of ``x``: a number, or a tree of numbers like
            ``x``.
        generator: Source of randomness; without one, a copy of the global generator as it is now.

    Returns:
        ``perturb(x)``: a new tree like ``x``, another draw at every call. Integer leaves stay.

    Raises:
        AttribError: If `radius` is negative, not finite, or structured differently from ``x``.

    Example:
        >>> import torch
        >>> perturb = uniform(0.1, generator=torch.Generator().manual_seed(0))
        >>> bool(perturb(torch.zeros(100)).abs().max() <= 0.1)
        True
    """
    check_scale(radius, "radius")
    return Noise(_box, _fill_box, Stream(generator), radius, "radius")


def drawn(
    perturb: Callable[[Tree], Any],
    x: Tree,
    samples: int,
    *,
    after_x: bool = False,
    measured: bool = False,
) -> Points:
    """Draws of a perturbation, which do not depend on how they are chunked.

    Args:
        perturb: ``x -> x'``, called once for each draw.
        x: What is perturbed.
        samples: Number of draws.
        after_x: Put ``x`` itself in front of them, as one point more.
        measured: Let `perturb` return a `Perturbed`, too.
    """
    if isinstance(perturb, Noise):
        several = perturb.about(x)  # which refuses x before anything is evaluated

        def together(start: int, stop: int) -> Tree:
            first = after_x and start == 0
            return several(stop - start - first, first)

        return Points(samples + after_x, together)

    def draw() -> Tree:
        found = perturb(x)
        point = found.x if measured and isinstance(found, Perturbed) else found
        check_like(point, x, "perturb", "one draw for each call")
        return found

    def unmoved(beside: Sequence[Any]) -> Tree:
        if beside and isinstance(beside[0], Perturbed):
            return Perturbed(x, tree_map(torch.zeros_like, beside[0].change))
        return x

    return draws(draw, samples, unmoved if after_x else None)


def check_scale(scale: Any, name: str) -> None:
    """A number, or a tree of numbers in which those of leaves without noise may be absent."""
    for number in leaves(scale):
        if number is not None or scale is None:
            check_number(number, name)


def _copy_of_global(device: torch.device) -> torch.Generator:
    state = (
        torch.get_rng_state()
        if device.type == "cpu"
        else torch.get_device_module(device).get_rng_state(device)
    )
    copy = torch.Generator(device)
    copy.set_state(state)
    return copy

"""Random perturbations of an input, x -> x'."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attrib._checks import check_number
from attrib._transforms import compiling, mapped
from attrib._tree import differentiable, flatten, leaves, leaves_for, tree_map, unflatten
from attrib.errors import AttribTypeError, AttribValueError
from attrib.types import Perturb, Tree

__all__ = ["Stream", "check_scale", "fork", "gaussian", "uniform"]


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
    stream = Stream(generator)

    def noise(leaf: Tensor, scale: float) -> Tensor:
        draw = torch.randn(
            leaf.shape, generator=stream.on(leaf.device), dtype=leaf.dtype, device=leaf.device
        )
        return leaf + scale * draw

    return lambda x: _leafwise(noise, x, std, "std")


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
    stream = Stream(generator)

    def noise(leaf: Tensor, scale: float) -> Tensor:
        draw = torch.rand(
            leaf.shape, generator=stream.on(leaf.device), dtype=leaf.dtype, device=leaf.device
        )
        return leaf + scale * (2 * draw - 1)

    return lambda x: _leafwise(noise, x, radius, "radius")


def check_scale(scale: Any, name: str) -> None:
    """A number, or a tree of numbers in which those of leaves without noise may be absent."""
    if scale is None:
        check_number(scale, name)
    tree_map(lambda s: check_number(s, name), scale)


def _leafwise(noise: Callable[[Tensor, float], Tensor], x: Tree, scale: Any, name: str) -> Tree:
    parts, spec = flatten(x)
    scales = leaves_for(x, scale)
    if scales is None:
        raise AttribValueError(
            f"{name}: structure differs from that of x, got {len(leaves(scale))} numbers; pass "
            f"one number, or a tree of {len(parts)} numbers like x",
            code=f"{name}.structure",
        )
    pairs = zip(parts, scales, strict=True)
    return unflatten(
        spec,
        [noise(leaf, check_number(s, name)) if differentiable(leaf) else leaf for leaf, s in pairs],
    )


def _copy_of_global(device: torch.device) -> torch.Generator:
    state = (
        torch.get_rng_state()
        if device.type == "cpu"
        else torch.get_device_module(device).get_rng_state(device)
    )
    copy = torch.Generator(device)
    copy.set_state(state)
    return copy

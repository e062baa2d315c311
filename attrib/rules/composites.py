"""Composites: which rule of relevance propagation each operation follows, as plain mappings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

from torch import Tensor, nn

from attrib.errors import AttribTypeError, AttribValueError
from attrib.rules import _passing as passing
from attrib.rules import _relevance as rules
from attrib.rules._flow import Rule
from attrib.rules._operations import OPERATIONS

__all__ = [
    "Table",
    "attn_lrp",
    "check_composite",
    "cp_lrp",
    "epsilon_alpha2_beta1",
    "epsilon_alpha2_beta1_flat",
    "epsilon_gamma_box",
    "epsilon_plus",
    "epsilon_plus_flat",
    "excitation",
]

Composite = Mapping[Any, Rule]


class Table(NamedTuple):
    """A composite, read.

    Attributes:
        named: Rules by the name of an operation or of a family.
        functions: Rules by a torch function.
        positions: Rules by the place of a weighted operation among those that are called.
        modules: Rules by the module whose weight is used.
    """

    named: dict[str, Rule]
    functions: dict[Any, Rule]
    positions: dict[int, Rule]
    modules: list[tuple[nn.Module, Rule]]

    def all(self) -> list[Rule]:
        """Every rule there is."""
        own = [*self.named.values(), *self.functions.values(), *self.positions.values()]
        return own + [rule for _, rule in self.modules]


def epsilon_plus(epsilon: float = 1e-6) -> dict[Any, Rule]:
    r"""The :math:`z^+` rule in convolutions, LRP-:math:`\epsilon` in dense layers.

    Args:
        epsilon: As for `attrib.rules.epsilon`.

    Returns:
        A composite for `attrib.lrp`.

    References:
        Kohlbrenner, Bauer, Nakajima, Binder, Samek & Lapuschkin (2020),
        https://arxiv.org/abs/1910.09840

    Example:
        >>> list(epsilon_plus())
        ['conv', 'linear']
    """
    return {"conv": rules.z_plus(epsilon), "linear": rules.epsilon(epsilon)}


def epsilon_plus_flat(epsilon: float = 1e-6) -> dict[Any, Rule]:
    """`epsilon_plus`, with the flat rule in the first layer.

    Args:
        epsilon: As for `attrib.rules.epsilon`.

    Returns:
        A composite for `attrib.lrp`.

    Example:
        >>> list(epsilon_plus_flat())
        ['conv', 'linear', 0]
    """
    return {**epsilon_plus(epsilon), 0: rules.flat()}


def epsilon_gamma_box(
    low: float | Tensor, high: float | Tensor, gamma: float = 0.25, epsilon: float = 1e-6
) -> dict[Any, Rule]:
    r"""LRP-:math:`\gamma` in convolutions, LRP-:math:`\epsilon` in dense layers, and the
    :math:`z^B` rule in the first layer.

    Args:
        low: The smallest value an input can have.
        high: The largest.
        gamma: As for `attrib.rules.gamma`.
        epsilon: As for `attrib.rules.epsilon`.

    Returns:
        A composite for `attrib.lrp`.

    References:
        Montavon, Binder, Lapuschkin, Samek & Müller (2019),
        https://doi.org/10.1007/978-3-030-28954-6_10

    Example:
        >>> list(epsilon_gamma_box(0.0, 1.0))
        ['conv', 'linear', 0]
    """
    first = {0: rules.z_box(low, high, epsilon)}
    return {"conv": rules.gamma(gamma, epsilon), "linear": rules.epsilon(epsilon), **first}


def epsilon_alpha2_beta1(epsilon: float = 1e-6) -> dict[Any, Rule]:
    r"""LRP-:math:`\alpha\beta` with 2 and 1 in convolutions, LRP-:math:`\epsilon` in dense layers.

    Args:
        epsilon: As for `attrib.rules.epsilon`.

    Returns:
        A composite for `attrib.lrp`.

    Example:
        >>> list(epsilon_alpha2_beta1())
        ['conv', 'linear']
    """
    return {"conv": rules.alpha_beta(2, 1, epsilon), "linear": rules.epsilon(epsilon)}


def epsilon_alpha2_beta1_flat(epsilon: float = 1e-6) -> dict[Any, Rule]:
    """`epsilon_alpha2_beta1`, with the flat rule in the first layer.

    Args:
        epsilon: As for `attrib.rules.epsilon`.

    Returns:
        A composite for `attrib.lrp`.

    Example:
        >>> list(epsilon_alpha2_beta1_flat())
        ['conv', 'linear', 0]
    """
    return {**epsilon_alpha2_beta1(epsilon), 0: rules.flat()}


def attn_lrp(epsilon: float = 1e-6) -> dict[Any, Rule]:
    r"""AttnLRP, for transformers: the gradient of softmax, equal parts to the factors of a product,
    constant normalisers in layer and RMS norm, all relevance through activations.

    These are the rules that every composite starts from; this one adds LRP-:math:`\epsilon` in all
    matrix products with a weight.

    Args:
        epsilon: As for `attrib.rules.epsilon`.

    Returns:
        A composite for `attrib.lrp`.

    References:
        Achtibat, Hatefi, Dreyer, Jain, Wiegand, Lapuschkin & Samek (2024),
        https://arxiv.org/abs/2402.05602

    Example:
        >>> list(attn_lrp())
        ['conv', 'linear']
    """
    return {"conv": rules.epsilon(epsilon), "linear": rules.epsilon(epsilon)}


def cp_lrp(epsilon: float = 1e-6) -> dict[Any, Rule]:
    r"""CP-LRP, for transformers: `attn_lrp` with the weights of attention held constant.

    Without biases it conserves relevance exactly. Every softmax is a constant, so explain logits,
    not probabilities.

    Args:
        epsilon: As for `attrib.rules.epsilon`.

    Returns:
        A composite for `attrib.lrp`.

    References:
        Ali, Schnake, Eberle, Montavon, Müller & Wolf (2022), https://arxiv.org/abs/2202.07304

    Example:
        >>> list(cp_lrp())
        ['conv', 'linear', 'softmax']
    """
    return {**attn_lrp(epsilon), "softmax": passing.frozen()}


def excitation() -> dict[Any, Rule]:
    """Excitation backpropagation: positive contributions without their biases."""
    positive = rules.z_plus(0, bias=False)
    return {"conv": positive, "linear": positive}


def check_composite(composite: Any, more: Mapping[Any, Rule]) -> Table:
    """A composite over the rules that it leaves open, and rules that go before it."""
    if not isinstance(composite, Mapping):
        _refuse(f"a {type(composite).__name__}")
    table = Table(dict(BASE), {}, {}, [])
    own: dict[Any, Any] = dict(composite)  # pyright: ignore[reportUnknownArgumentType]
    for key, rule in own.items():
        if isinstance(rule, (int, float, str, Tensor)) or not callable(rule):
            _refuse(f"{key!r}: {type(rule).__name__}")
        if isinstance(key, str) and key not in _NAMES:
            raise AttribValueError(
                f"composite: unknown operation, got {key!r}; must be the name of an operation or a "
                "family such as 'conv', 'linear', 'activation', 'pool', 'softmax', 'product'",
                code="composite.unknown",
            )
        _put(table, key, rule)
    for key, rule in more.items():
        _put(table, key, rule)
    return table


def _put(table: Table, key: Any, rule: Rule) -> None:
    if isinstance(key, nn.Module):
        table.modules.append((key, rule))
    elif isinstance(key, str):
        table.named[key] = rule
    elif isinstance(key, int) and not isinstance(key, bool) and key >= 0:
        table.positions[key] = rule
    elif callable(key):
        table.functions[key] = rule
    else:
        _refuse(f"the key {key!r}")


def _refuse(what: str) -> NoReturn:
    raise AttribTypeError(
        f"composite: must be a mapping from operations to rules, got {what}; pass e.g. "
        "{'conv': attrib.rules.z_plus(), 0: attrib.rules.flat()}, with names, positions from 0 on, "
        "modules or torch functions for operations",
        code="composite.type",
    )


BASE: dict[str, Rule] = {
    "conv": rules.epsilon(),
    "linear": rules.epsilon(),
    "activation": passing.identity(),
    "elementwise": passing.identity(),
    "pool": passing.gradient(),
    "softmax": passing.gradient(),
    "product": passing.uniform(),
    # Denominators: of layer norm, of RMS norm, of any quotient.
    "rsqrt": passing.frozen(),
    "reciprocal": passing.frozen(),
}
"""What every composite starts from."""

_NAMES = {"conv", "linear", "product"} | {
    name for operation in OPERATIONS.values() for name in (operation.name, operation.family)
}

r"""Fitting a Gaussian process to pairs of complementary coalitions.

With :math:`q = 2z - 1`, :math:`y(q) = v(z) - v(1 - z)` is an odd function that has the Shapley
values of :math:`2 v`. It is taken to be

.. math:: y(q) = q \cdot \beta + h(q), \qquad
          \operatorname{cov}(h(q), h(t)) = \sigma^2 \sinh(c\, q \cdot t / M),

an additive game of which nothing is known before, and interactions of all odd orders, the higher
the weaker. The hyperbolic sine is the odd part of

.. math:: e^{c\, q \cdot t / M} = \prod_j \Big( \cosh\frac cM + q_j t_j \sinh\frac cM \Big),

and an even part has no Shapley values. A product is easily extended to players who are present with
probability :math:`p`, and the Shapley value is the mean slope of that (Owen, 1972,
https://doi.org/10.1287/mnsc.18.5.64):

.. math:: \operatorname{cov}(\phi_i, y(t)) = \sigma^2\, t_i \sinh\frac cM \int_0^1 \prod_{j \ne i}
          \Big( \cosh\frac cM + (2p - 1)\, t_j \sinh\frac cM \Big) dp.

What the pairs that are seen tell of the others is then known (Rasmussen & Williams, 2006, section
2.7; Matheron, 1969, calls it universal kriging).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attrib._quadrature import nodes, rule_tensors
from attrib.games._folding import product, pseudo_inverse, unreduced

__all__ = ["Posterior", "posterior"]

_SCALE = 4.0
"""The c of the kernel. From 2 to 6, errors on tables and images are nearly the same (measured);
those of games without any order are less to be trusted at the lower end."""

_ROUNDING = 1e-6
"""What part of the variance of a difference may be rounding."""

_MOST_NODES = 32
"""The integrand is a polynomial of this degree or smoother than that."""


class Posterior(NamedTuple):
    r"""What pairs, the first of which is everybody and nobody, tell of the Shapley values.

    Attributes:
        weights: Of the differences in the mean, ``(pairs, players)``.
        signs: :math:`q`, ``(pairs, players)``.
        additive: From the differences to the additive part alone, ``(players, pairs)``.
        precision: Of the differences, where nothing is known of the additive part.
        variances: Of the values, as parts of :math:`\sigma^2`, ``(players,)``.
        spare: What the sum of squares is divided by: how many pairs there are more than unknowns,
            less two, since :math:`\sigma` is not known but follows from the same pairs (Student's t
            has this variance); NaN if that is not positive, or not all unknowns are determined.
    """

    weights: Tensor
    signs: Tensor
    additive: Tensor
    precision: Tensor
    variances: Tensor
    spare: Tensor

    def errors(self, differences: Tensor) -> Tensor:
        r"""Standard deviations ``(*batch, players)``, with the :math:`\sigma` that differences
        ``(pairs, *batch)`` have."""
        columns = differences.reshape(len(differences), -1)  # one example has no batch
        # The precision does not see the additive part, however large that is, but for its rounding.
        rest = columns - product(self.signs, product(self.additive, columns))
        amounts = (rest * product(self.precision, rest)).sum(0) / self.spare
        found = torch.sqrt(amounts[:, None].clamp_min(0) * self.variances)
        return found.reshape(*differences.shape[1:], -1)


def posterior(coalitions: Tensor) -> Posterior:
    """What the differences of coalitions ``(pairs, players)`` and their complements tell, and that
    of everybody and nobody before them."""
    everybody = torch.nn.functional.pad(coalitions, (0, 0, 1, 0), value=True)
    precise = torch.float32 if coalitions.device.type == "mps" else torch.float64
    signs = 2 * everybody.to(precise) - 1
    pairs, players = signs.shape
    own = torch.sinh(_SCALE / players * product(signs, signs.mT))
    rounding = _ROUNDING * math.sinh(_SCALE) * torch.eye(pairs, dtype=own.dtype, device=own.device)
    inverse: Tensor = unreduced(_inverse, own + rounding)
    shared, alone = _covariances(everybody, signs)

    seen = product(inverse, signs)
    gram = product(signs.mT, seen)
    additive = pseudo_inverse(gram, pairs)
    to_additive = product(additive, seen.mT)
    precision = inverse - product(seen, to_additive)
    weights = to_additive.mT + product(precision, shared)
    # What the rounding takes from the sum is given back.
    rise = torch.eye(pairs, 1, dtype=own.dtype, device=own.device)
    weights = weights - (weights.sum(1, keepdim=True) - rise) / players

    explained = (shared * product(inverse, shared)).sum(0)
    missing = torch.eye(players, dtype=own.dtype, device=own.device) - product(seen.mT, shared)
    unknown = (missing * product(additive, missing)).sum(0)
    rank = (to_additive * signs.mT).sum()
    left = pairs - players - 2
    spare = torch.where(rank > players - 0.5, float(left) if left > 0 else math.nan, math.nan)
    variances = (alone - explained + unknown).clamp_min(0)
    return Posterior(weights, signs, to_additive, precision, variances, spare)


def _inverse(symmetric: Tensor) -> Tensor:
    linalg: Any = torch.linalg
    return torch.cholesky_inverse(linalg.cholesky(symmetric))


def _covariances(coalitions: Tensor, signs: Tensor) -> tuple[Tensor, Tensor]:
    r"""Those of the values with the differences, ``(pairs, players)``, and the variance of a value,
    as parts of :math:`\sigma^2`."""
    players = signs.shape[1]
    even, odd = math.cosh(_SCALE / players), math.sinh(_SCALE / players)
    places, parts = rule_tensors(nodes("gauss-legendre", min(players // 2 + 1, _MOST_NODES)), signs)
    places = 2 * places - 1
    present = torch.arange(players, device=signs.device)[:, None]  # of the others
    up, down = even + odd * places, even - odd * places
    slopes = odd * product(up**present * down ** (players - 1 - present), parts)
    others = coalitions.sum(1, keepdim=True) - coalitions.to(torch.long)
    grid = (even + odd * places[:, None] * places) ** (players - 1)
    alone = odd * product(parts, product(grid, parts))
    return signs * slopes[others], alone

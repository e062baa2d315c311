"""Rules: the same model with other derivatives for some of its operations."""

from __future__ import annotations

from attrib.rules._passing import frozen, gradient, identity, uniform
from attrib.rules._relevance import (
    alpha_beta,
    epsilon,
    flat,
    gamma,
    norm,
    w_square,
    z_box,
    z_plus,
)
from attrib.rules.composites import (
    attn_lrp,
    cp_lrp,
    epsilon_alpha2_beta1,
    epsilon_alpha2_beta1_flat,
    epsilon_gamma_box,
    epsilon_plus,
    epsilon_plus_flat,
)
from attrib.rules.deep_lift import deep_lift
from attrib.rules.lrp import excitation_backprop, lrp
from attrib.rules.override import deconvolution, guided_backprop, override

__all__ = [
    "alpha_beta",
    "attn_lrp",
    "cp_lrp",
    "deconvolution",
    "deep_lift",
    "epsilon",
    "epsilon_alpha2_beta1",
    "epsilon_alpha2_beta1_flat",
    "epsilon_gamma_box",
    "epsilon_plus",
    "epsilon_plus_flat",
    "excitation_backprop",
    "flat",
    "frozen",
    "gamma",
    "gradient",
    "guided_backprop",
    "identity",
    "lrp",
    "norm",
    "override",
    "uniform",
    "w_square",
    "z_box",
    "z_plus",
]

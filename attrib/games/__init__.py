"""Explanations by hiding features: coalition games, and what is read off them."""

from attrib.games.ablation import feature_ablation, feature_inclusion, occlusion
from attrib.games.banzhaf import banzhaf_values
from attrib.games.game import Game, game
from attrib.games.groups import patches, slic, superpixels, tokens, windows, words
from attrib.games.interactions import Interactions, interactions, pairwise
from attrib.games.kernel import kernel_shap, unbiased_kernel_shap
from attrib.games.owen import owen_values
from attrib.games.permutation import feature_permutation
from attrib.games.rise import rise
from attrib.games.sampling import shapley_sampling
from attrib.games.shapley import shapley_values
from attrib.games.surrogate import exponential_kernel, lime
from attrib.games.svarm import svarm

__all__ = [
    "Game",
    "Interactions",
    "banzhaf_values",
    "exponential_kernel",
    "feature_ablation",
    "feature_inclusion",
    "feature_permutation",
    "game",
    "interactions",
    "kernel_shap",
    "lime",
    "occlusion",
    "owen_values",
    "pairwise",
    "patches",
    "rise",
    "shapley_sampling",
    "shapley_values",
    "slic",
    "superpixels",
    "svarm",
    "tokens",
    "unbiased_kernel_shap",
    "windows",
    "words",
]

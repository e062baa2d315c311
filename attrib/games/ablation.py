"""What one feature alone makes of the score: taken away from the others, or added to nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attrib._map import ChunkSize, Points
from attrib.errors import AttribValueError
from attrib.games._attribution import attribution
from attrib.games._players import Groups, Windows
from attrib.games.game import Game
from attrib.types import Attribute, Score

__all__ = ["all_but_one", "feature_ablation", "feature_inclusion", "occlusion"]


def feature_ablation(
    f: Score,
    *,
    groups: Groups = None,
    interventional: bool = False,
    chunk_size: ChunkSize = "auto",
) -> Attribute:
    r"""What the score loses without a feature,

    .. math:: \phi_i = v(N) - v(N \setminus \{i\}) = f(x) - f(x_{N \setminus \{i\}}, x'_i).

    Args:
        f: Score.
        groups: What is one feature, as for `attrib.games.game`; every entry by default.
        interventional: The baseline is a set to average over, as for `attrib.games.game`.
        chunk_size: Features hidden at once.

    Returns:
        ``attribute(x, baseline=0, *args)``, a tree like ``x``, in units of the score: every entry
        has the number of its feature, one that belongs to none has zero. Integer and boolean leaves
        are attributed too, in the dtype of the score.

    Raises:
        AttribError: As for `attrib.games.game`.

    Warns:
        NonFiniteWarning: If a score is NaN or infinite.

    References:
        Zeiler & Fergus (2014), section 4, https://arxiv.org/abs/1311.2901; Covert, Lundberg & Lee
        (2021), section 7, https://arxiv.org/abs/2011.14878

    Example:
        >>> import torch
        >>> feature_ablation(lambda x: x.prod(-1))(torch.tensor([[2.0, 3.0]]), 1.0)
        tensor([[3., 4.]])
    """

    def losses(v: Game) -> Tensor:
        from attrib.games._reach import incremental  # `import attrib` is quicker without it

        whole, without = _first_and_rest(incremental(v), all_but_one(v.players, v.device))
        return (whole - without).movedim(0, -1)

    return attribution(
        f, losses, groups=groups, interventional=interventional, chunk_size=chunk_size
    )


def feature_inclusion(
    f: Score,
    *,
    groups: Groups = None,
    interventional: bool = False,
    chunk_size: ChunkSize = "auto",
) -> Attribute:
    r"""What a feature alone adds to the score of the baseline,

    .. math:: \phi_i = v(\{i\}) - v(\emptyset) = f(x_i, x'_{N \setminus \{i\}}) - f(x').

    Args:
        f: Score.
        groups: As for `feature_ablation`, but no windows, which may overlap.
        interventional: As for `feature_ablation`.
        chunk_size: Features shown at once.

    Returns:
        As for `feature_ablation`.

    Raises:
        AttribError: As for `attrib.games.game`.

    Warns:
        NonFiniteWarning: If a score is NaN or infinite.

    References:
        Covert, Lundberg & Lee (2021), section 7, https://arxiv.org/abs/2011.14878

    Example:
        >>> import torch
        >>> feature_inclusion(lambda x: x.prod(-1))(torch.tensor([[2.0, 3.0]]), 1.0)
        tensor([[1., 2.]])
    """
    if isinstance(groups, Windows):
        raise AttribValueError(
            f"groups: may overlap, got windows of {groups.window}; to show one window alone is to "
            "hide parts of it that others cover. Pass ids, e.g. attrib.games.patches(x, size)",
            code="groups.overlap",
        )

    def gains(v: Game) -> Tensor:
        nothing, alone = _first_and_rest(v, _only_one(v.players, v.device))
        return (alone - nothing).movedim(0, -1)

    return attribution(
        f, gains, groups=groups, interventional=interventional, chunk_size=chunk_size
    )


def occlusion(
    f: Score,
    window: Any,
    *,
    strides: Any = 1,
    interventional: bool = False,
    chunk_size: ChunkSize = "auto",
) -> Attribute:
    r"""What the score loses behind a window, averaged over the windows that cover an entry,

    .. math:: \phi_i = \frac{1}{|\{W : i \in W\}|} \sum_{W \ni i}
              \big(f(x) - f(x_{\setminus W}, x'_W)\big).

    Args:
        f: Score.
        window: Sizes of the window in the last dimensions of ``x``, as for `attrib.games.windows`:
            ``(8, 8)`` hides all channels of an image.
        strides: Steps of the window, one integer or integers like `window`; the last window is cut
            off at the end of ``x``.
        interventional: As for `feature_ablation`.
        chunk_size: Windows hidden at once.

    Returns:
        ``attribute(x, baseline=0, *args)``, a tree like ``x``, in units of the score. An entry that
        no window covers gets zero.

    Raises:
        AttribError: If the window does not fit ``x``, and as for `attrib.games.game`.

    Warns:
        NonFiniteWarning: If a score is NaN or infinite.

    References:
        Zeiler & Fergus (2014), section 4, https://arxiv.org/abs/1311.2901

    Example:
        >>> import torch
        >>> occlusion(lambda x: x.sum(-1), (2,))(torch.tensor([[1.0, 2.0, 4.0]]))
        tensor([[3.0000, 4.5000, 6.0000]])
    """
    return feature_ablation(
        f,
        groups=Windows(window, strides),
        interventional=interventional,
        chunk_size=chunk_size,
    )


def all_but_one(players: int, device: torch.device) -> Points:
    """Everybody, then for each player everybody else.

    The whole is evaluated among the rest: in a batch of another size the last bits of a score may
    differ, and a feature without influence would not get exactly zero.
    """
    everyone = torch.arange(players, device=device)

    def take(start: int, stop: int) -> Tensor:
        absent = torch.arange(start - 1, stop - 1, device=device)
        return everyone != absent.unsqueeze(-1)

    return Points(players + 1, take)


def _only_one(players: int, device: torch.device) -> Points:
    """Nobody, then each player alone."""
    others = all_but_one(players, device)

    def take(start: int, stop: int) -> Tensor:
        return ~others.take(start, stop)

    return Points(others.total, take)


def _first_and_rest(v: Game, coalitions: Points) -> tuple[Tensor, Tensor]:
    values = torch.cat([values for _, values in v.over(coalitions)])
    return values[0], values[1:]

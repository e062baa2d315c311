"""Which entries of an input are one feature: windows, patches, superpixels, tokens, words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from attrib._checks import check_count, check_input, check_number, check_several
from attrib.errors import AttribTypeError, AttribValueError
from attrib.games._players import Groups, Windows, check_ids

__all__ = ["Groups", "patches", "slic", "superpixels", "tokens", "windows", "words"]


def windows(window: Any, strides: Any = 1) -> Windows:
    r"""Boxes that slide over the input: one feature for each place of the box.

    Along a dimension of size :math:`L` there are :math:`\lceil (L - w) / s \rceil + 1` places, the
    last of which is cut off at the end. Boxes overlap where the stride is smaller than the box, and
    leave gaps where it is larger.

    Args:
        window: Sizes :math:`w` of the box in the last dimensions of ``x``, a tuple of integers. It
            spans the features that it does not mention, such as channels. For ``x`` of several
            leaves a tree like ``x`` of such tuples; ``None`` for a leaf that is never hidden.
        strides: Steps :math:`s` of the box: one integer, or integers like `window`.

    Returns:
        The ``groups`` of a game or a method.

    Raises:
        AttribError: By the game, if the sizes or steps are not positive integers or do not fit
            ``x``.

    Example:
        >>> import torch
        >>> from attrib.games import game, windows
        >>> x = torch.zeros(1, 3, 32, 32)
        >>> game(lambda x: x.sum((1, 2, 3)), x, groups=windows((8, 8), 4)).players
        49
    """
    return Windows(window, strides)


def patches(x: Tensor, size: Sequence[int]) -> Tensor:
    """Ids of the boxes that tile the last dimensions of a tensor, smaller ones at the end.

    Args:
        x: Tensor ``(..., *space)``.
        size: Size of a box in each of the last dimensions.

    Returns:
        ``(*space,)`` integers, which broadcast to ``x``.

    Raises:
        AttribError: If a size is not a positive integer, or ``x`` has fewer dimensions.

    Example:
        >>> import torch
        >>> patches(torch.zeros(1, 3, 4, 5), (2, 3))
        tensor([[0, 0, 0, 1, 1],
                [0, 0, 0, 1, 1],
                [2, 2, 2, 3, 3],
                [2, 2, 2, 3, 3]])
    """
    check_input(x, gradients=False)
    steps = [check_count(step, "size") for step in check_several(size, "size")]
    if len(steps) > x.ndim or not steps:
        raise AttribValueError(
            f"size: one number for each of the last dimensions, got {len(steps)} numbers for x of "
            f"shape {tuple(x.shape)}",
            code="size.shape",
        )
    ids = torch.zeros((), dtype=torch.long, device=x.device)
    for length, step in zip(x.shape[-len(steps) :], steps, strict=True):
        places = torch.arange(length, device=x.device) // step
        ids = ids.unsqueeze(-1) * math.ceil(length / step) + places
    return ids


def superpixels(segmentation: Any) -> Tensor:
    """Ids of the regions of images, from any segmentation.

    Args:
        segmentation: Integers ``(height, width)`` for all images, or ``(*batch, height, width)``: a
            tensor or an array. Negative ones are never hidden.

    Returns:
        ``(..., 1, height, width)`` integers, which broadcast over the channels of images.

    Raises:
        AttribError: If the segmentation is not made of integers, or has less than two dimensions.

    Example:
        >>> superpixels(torch.tensor([[0, 0, 7], [0, 7, 7]])).shape
        torch.Size([1, 2, 3])
    """
    try:
        ids = torch.as_tensor(segmentation)
    except (TypeError, ValueError):
        ids = segmentation  # refused below
    check_ids(ids, "segmentation", "label every pixel with the number of its region")
    if ids.ndim < 2:
        raise AttribValueError(
            f"segmentation: must have a height and a width, got shape {tuple(ids.shape)}",
            code="segmentation.shape",
        )
    return ids.unsqueeze(-3)


def slic(x: Tensor, *, segments: int = 50, compactness: float = 10.0) -> Tensor:
    """Ids of regions of similar colour, by k-means in colour and place (needs scikit-image, the
    extra ``attrib[superpixels]``).

    Args:
        x: Images ``(*batch, channels, height, width)`` in any units.
        segments: About how many regions per image.
        compactness: How much nearness in place counts beside nearness in colour.

    Returns:
        ``(*batch, 1, height, width)`` integers from zero, on the device of ``x``.

    Raises:
        AttribError: If ``x`` is not a tensor of images or an option is out of range.
        ImportError: If scikit-image is not installed.

    References:
        Achanta, Shaji, Smith, Lucchi, Fua & Suesstrunk (2012),
        https://doi.org/10.1109/TPAMI.2012.120

    Example:
        >>> import torch
        >>> slic(torch.rand(1, 3, 16, 16), segments=4).shape
        torch.Size([1, 1, 16, 16])
    """
    check_input(x, gradients=False)
    check_count(segments, "segments")
    check_number(compactness, "compactness", exclusive=True)
    if x.ndim < 3:
        raise AttribValueError(
            f"x: must be images (*batch, channels, height, width), got shape {tuple(x.shape)}",
            code="x.shape",
        )
    segmentation: Any = import_module("skimage.segmentation")

    def regions(image: Any) -> Any:
        # In [0, 1], as the conversion to colours that look different expects.
        image = (image - image.min()) / max(image.max() - image.min(), 1e-12)
        return segmentation.slic(
            image, segments, compactness=compactness, channel_axis=0, start_label=0
        )

    images = x.detach().to("cpu", torch.float64).reshape(-1, *x.shape[-3:])
    found = torch.stack([torch.as_tensor(regions(image.numpy())) for image in images])
    return found.reshape(*x.shape[:-3], 1, *x.shape[-2:]).to(x.device, torch.long)


def tokens(x: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Ids of the positions of sequences, each one feature; padding is never hidden.

    Args:
        x: Token ids ``(*batch, tokens)``, or embeddings ``(*batch, tokens, size)`` if it is
            floating-point.
        mask: ``(*batch, tokens)``, true or one for tokens and false or zero for padding, such as
            the attention mask of a tokenizer.

    Returns:
        Integers that broadcast to ``x``: ``(tokens,)`` or like the mask, followed by a dimension of
        one for embeddings.

    Raises:
        AttribError: If the mask is no tensor or does not fit.

    Example:
        >>> import torch
        >>> tokens(torch.tensor([[5, 6, 0], [7, 8, 9]]), mask=torch.tensor([[1, 1, 0], [1, 1, 1]]))
        tensor([[ 0,  1, -1],
                [ 0,  1,  2]])
    """
    length = _length(x)
    ids = torch.arange(length, device=x.device)
    if mask is not None:
        if not isinstance(mask, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise AttribTypeError(
                f"mask: must be a tensor, got {type(mask).__name__}; pass the attention mask of "
                "the tokenizer",
                code="mask.type",
            )
        if mask.ndim == 0 or mask.shape[-1] != length:
            raise AttribValueError(
                f"mask: one entry for each of the {length} tokens, got shape {tuple(mask.shape)}",
                code="mask.shape",
            )
        ids = torch.where(mask.bool(), ids, -1)
    return ids.unsqueeze(-1) if x.is_floating_point() else ids


def words(x: Tensor, word_ids: Sequence[Any]) -> Tensor:
    """Ids of the words of sequences, as a tokenizer knows them; special tokens are never hidden.

    Args:
        x: As for `tokens`.
        word_ids: For each token, the number of its word, or ``None``: what ``word_ids()`` of a fast
            tokenizer returns. A list of such lists for a batch.

    Returns:
        Integers that broadcast to ``x``: ``(tokens,)`` or ``(batch, tokens)``, followed by a
        dimension of one for embeddings. All tokens of a word have its number.

    Raises:
        AttribError: If the lists are not made of integers and ``None``, or their length is not the
            number of tokens.

    Example:
        >>> import torch
        >>> words(torch.tensor([[101, 9, 8, 7, 102]]), [None, 0, 0, 1, None])
        tensor([-1,  0,  0,  1, -1])
    """
    length = _length(x)
    given = check_several(word_ids, "word_ids")
    batch = any(isinstance(entry, (list, tuple)) for entry in given)
    rows = [check_several(row, "word_ids") for row in given] if batch else [given]
    if any(len(row) != length for row in rows):
        raise AttribValueError(
            f"word_ids: one entry for each of the {length} tokens, got lists of length "
            f"{sorted({len(row) for row in rows})}",
            code="word_ids.shape",
        )
    numbers_of = [
        [-1 if i is None else check_count(i, "word_ids", least=0) for i in r] for r in rows
    ]
    ids = torch.tensor(numbers_of, device=x.device)
    ids = ids if batch else ids[0]
    return ids.unsqueeze(-1) if x.is_floating_point() else ids


def _length(x: Tensor) -> int:
    """How many tokens there are."""
    check_input(x, gradients=False)
    least = 2 if x.is_floating_point() else 1
    if x.ndim < least:
        raise AttribValueError(
            "x: must be token ids (*batch, tokens) or embeddings (*batch, tokens, size), got shape "
            f"{tuple(x.shape)}",
            code="x.shape",
        )
    return x.shape[-least]

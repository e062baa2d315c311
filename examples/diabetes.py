"""A table of patients to explain: the diabetes set of scikit-learn, ten measurements of 442 people,
and a score of how far the disease went in the next year."""

from typing import NamedTuple

import torch
from sklearn.datasets import load_diabetes
from torch import Tensor

NAMES = {
    "bmi": "body mass index",
    "bp": "blood pressure",
    "s1": "cholesterol",
    "s2": "LDL",
    "s3": "HDL",
    "s4": "cholesterol / HDL",
    "s5": "log of triglycerides",
    "s6": "blood sugar",
}


class Table(NamedTuple):
    """Standardised measurements (row, column), and the score of the disease (row,)."""

    names: list[str]
    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor


def load() -> Table:
    """Return the table, 342 of its rows for training."""
    data = load_diabetes()
    x = torch.tensor(data.data, dtype=torch.float32)
    y = torch.tensor(data.target, dtype=torch.float32)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train_rows, test_rows = order[:342], order[342:]
    x = (x - x[train_rows].mean(0)) / x[train_rows].std(0)
    names = [NAMES.get(name, name) for name in data.feature_names]
    return Table(names, x[train_rows], y[train_rows], x[test_rows], y[test_rows])

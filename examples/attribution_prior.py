"""Train a network that leans less on some of its inputs: expected gradients as a term of the loss.

python examples/attribution_prior.py [--out FOLDER]

The table is the breast cancer set of Wisconsin: 569 tumours, 30 measurements of the nuclei of
their cells. Ten of these, called "worst", are means over the three largest nuclei only. Suppose we
do not trust them, but will not leave them out either: the network may use them, at a price.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import torch
from sklearn.datasets import load_breast_cancer
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

import attrib
from drawing import new_figure, save

PRICE = 0.1  # of one unit of attribution, in units of the loss
SEEDS = range(3)
EPOCHS, BATCH = 60, 50


class Table(NamedTuple):
    """Standardised measurements (row, 30), diagnoses (row,), and the columns not trusted."""

    x: Tensor
    benign: Tensor
    x_test: Tensor
    benign_test: Tensor
    untrusted: Tensor
    names: list[str]


class Result(NamedTuple):
    """What became of a network, measured on rows it was not trained with."""

    accuracy: float
    share: float  # of the untrusted columns in the attributions
    accuracy_shuffled: float  # with the untrusted columns shuffled among the rows
    by_column: Tensor  # mean size of the attribution of each column


def main() -> None:
    """Train with and without the prior, and compare."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--out", type=Path, default=Path(__file__).with_name("output"))
    out: Path = arguments.parse_args().out
    torch.set_num_threads(1)  # the network is too small for more

    table = load()
    results = {
        price: [measure(train(table, price, seed), table) for seed in SEEDS]
        for price in (0.0, PRICE)
    }
    print(f"means over {len(SEEDS)} seeds             without prior   with prior")
    lines = {
        "accuracy on unseen rows": "accuracy",
        "share of the untrusted columns": "share",
        "accuracy with these shuffled": "accuracy_shuffled",
    }
    for line, field in lines.items():
        before, after = (
            sum(getattr(result, field) for result in results[price]) / len(SEEDS)
            for price in results
        )
        print(f"{line:32} {before:10.1%} {after:14.1%}")
    print("picture:", draw(results, table, out / "attribution_prior.png"), sep="\n  ")


def train(table: Table, price: float, seed: int) -> nn.Module:
    """Train a small network that pays for what it attributes to untrusted columns."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(30, 32), nn.Softplus(), nn.Linear(32, 1))
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    # Few draws are enough, for each step makes new ones. In compiled code they come from the global
    # generator; in a loop that is not compiled, pass `generator`, or every step repeats its draws.
    attribute = attrib.expected_gradients(attrib.target(model), samples=4)

    @torch.compile(fullgraph=True)
    def loss(x: Tensor, benign: Tensor) -> Tensor:
        attribution = attribute(x, table.x)
        paid = attribution[:, table.untrusted].abs().sum(1).mean()
        return binary_cross_entropy_with_logits(model(x)[:, 0], benign) + price * paid

    for _ in range(EPOCHS):
        for rows in torch.randperm(len(table.x)).split(BATCH):
            optimiser.zero_grad()
            loss(table.x[rows], table.benign[rows]).backward()
            optimiser.step()
    return model


def measure(model: nn.Module, table: Table) -> Result:
    """Measure accuracy and the reliance on the untrusted columns."""
    with torch.no_grad():
        draws = torch.Generator().manual_seed(0)
        attribute = attrib.expected_gradients(attrib.target(model), samples=200, generator=draws)
        by_column = attribute(table.x_test, table.x).abs().mean(0)
        share = float(by_column[table.untrusted].sum() / by_column.sum())

        # A second opinion, without attributions: how much does it hurt to lose these columns?
        shuffled = table.x_test.clone()
        order = torch.randperm(len(shuffled), generator=draws)
        shuffled[:, table.untrusted] = shuffled[order][:, table.untrusted]

        def accuracy(x: Tensor) -> float:
            return float(((model(x)[:, 0] > 0) == (table.benign_test > 0)).float().mean())

        return Result(accuracy(table.x_test), share, accuracy(shuffled), by_column)


def draw(results: dict[float, list[Result]], table: Table, path: Path) -> Path:
    """Draw the mean size of the attribution of each column, without and with the prior."""
    figure = new_figure(8, 6)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, (price, runs) in zip((left, right), results.items(), strict=True):
        sizes = torch.stack([run.by_column for run in runs])
        colours = [
            "#a34a00" if i in table.untrusted else "#62a0d8" for i in range(len(table.names))
        ]
        axes.barh(table.names, sizes.mean(0).numpy(), color=colours)
        for run in sizes:
            axes.plot(run.numpy(), range(len(run)), "k.", markersize=2)
        share = sum(run.share for run in runs) / len(runs)
        axes.set_title(
            ("with" if price else "without") + f" the prior: untrusted share {share:.1%}",
            fontsize=9,
        )
        axes.set_xlabel("mean |attribution|, logits", fontsize=8)
        axes.tick_params(labelsize=7)
    left.invert_yaxis()
    figure.supxlabel("orange: untrusted columns; dots: single seeds", fontsize=8)
    return save(figure, path)


def load() -> Table:
    """Return the table, 400 rows of it for training."""
    data = load_breast_cancer()
    x = torch.tensor(data.data, dtype=torch.float32)
    benign = torch.tensor(data.target, dtype=torch.float32)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train_rows, test_rows = order[:400], order[400:]
    x = (x - x[train_rows].mean(0)) / x[train_rows].std(0)
    names = [str(name) for name in data.feature_names]
    untrusted = torch.tensor([i for i, name in enumerate(names) if name.startswith("worst")])
    return Table(
        x[train_rows], benign[train_rows], x[test_rows], benign[test_rows], untrusted, names
    )


if __name__ == "__main__":
    main()

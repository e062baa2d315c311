"""What do trees go by, in general and for one patient? Permutation and Shapley values.

python examples/tabular_model.py [--out FOLDER]

The table is the diabetes set of scikit-learn: ten measurements of 442 patients, and a score of how
far the disease went in the next year. The model is one of scikit-learn, a black box without
derivatives. Hidden columns are drawn from other patients.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import torch
from sklearn.ensemble import ExtraTreesRegressor
from torch import Tensor

import attrib
from attrib import plot
from attrib.types import Estimate, Score
from diabetes import Table, load
from drawing import MAGNITUDE, new_figure, save, signed_number

PATIENTS = 3  # explained one by one
BACKGROUND = 100  # patients from whom hidden columns are drawn
ORDERS = 20  # of the columns: so few that the errors are seen


class Global(NamedTuple):
    """What the model goes by in general: of columns, and of every patient and column."""

    lost: Tensor  # (column,): explained variance without the column, in percent of all
    lost_error: Tensor  # its standard error
    values: Tensor  # (patient, column): Shapley values, in points
    ranks: Tensor  # (patient, column): how high the measurement is among the patients, 0 to 1


class Local(NamedTuple):
    """Why the model predicts what it does for each of some patients, (patient, column)."""

    predicted: Tensor
    sampled: Estimate
    exact: Tensor


def main() -> None:
    """Train the trees, explain them in general and for some patients, and draw both."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--out", type=Path, default=Path(__file__).with_name("output"))
    out: Path = arguments.parse_args().out
    torch.set_num_threads(1)  # the trees use numpy
    torch.manual_seed(0)

    table = load()
    trees = ExtraTreesRegressor(n_estimators=60, min_samples_leaf=4, random_state=0)
    trees.fit(table.x.numpy(), table.y.numpy())

    @attrib.batched
    def predict(x: Tensor) -> Tensor:
        return torch.from_numpy(trees.predict(x.numpy()))

    background = table.x[:BACKGROUND]
    with torch.no_grad():
        everybody = explain_everybody(predict, table, background)
        some = explain_some(predict, table.x_test[:PATIENTS], background)
    print_global(everybody, table.names)
    print_local(some, table.names, float(predict(background).mean()))
    files = (
        draw_global(everybody, table.names, out / "tabular_global.png"),
        draw_local(some, table.names, float(predict(background).mean()), out / "tabular_local.png"),
    )
    print("pictures:", *files, sep="\n  ")


def explain_everybody(predict: Score, table: Table, background: Tensor) -> Global:
    """Return how much of the explained variance rests on each column, and all Shapley values."""

    @attrib.batched
    def explained(x: Tensor, y: Tensor) -> Tensor:
        return 100 - 100 * (predict(x) - y).square() / table.y_test.var()

    x, y = table.x_test, table.y_test
    print(f"the trees explain {explained(x, y).mean():.0f}% of the variance in new patients")
    lost = attrib.feature_permutation(explained, samples=30)(x, y)
    error = lost.std(0) / len(x) ** 0.5  # of the mean, for patients like these
    values = attrib.kernel_shap(predict, samples=160, interventional=True)(x, background)
    ranks = x.argsort(0).argsort(0) / (len(x) - 1)
    return Global(lost.mean(0), error, values, ranks)


def explain_some(predict: Score, x: Tensor, background: Tensor) -> Local:
    """Return Shapley values from random orders, with standard errors, and from all coalitions."""
    sampled = attrib.shapley_sampling(
        predict, samples=ORDERS, design="independent", interventional=True, reduce=attrib.estimate
    )
    exact = attrib.shapley_values(predict, interventional=True)
    return Local(predict(x), sampled(x, background), exact(x, background))


def print_global(found: Global, names: list[str]) -> None:
    """Print the columns by how much they matter, in two ways."""
    print("                          explained variance lost     mean |Shapley value|")
    size = found.values.abs()
    error = size.std(0) / len(size) ** 0.5
    for column in found.lost.argsort(descending=True).tolist():
        lost = f"{found.lost[column]:6.1f} ± {found.lost_error[column]:3.1f} %"
        moved = f"{size[:, column].mean():6.1f} ± {error[column]:3.1f} points"
        print(f"  {names[column]:24} {lost:22} {moved}")


def print_local(found: Local, names: list[str], average: float) -> None:
    """Print the largest reasons for each prediction, and how far they are to be trusted."""
    print(f"predictions, {average:.0f} on average:")
    value, stderr, _ = found.sampled
    for patient, predicted in enumerate(found.predicted.tolist()):
        largest = value[patient].abs().argsort(descending=True)[:3].tolist()
        reasons = (
            f"{names[i]} {value[patient, i]:+.1f} ± {stderr[patient, i]:.1f}" for i in largest
        )
        print(f"  patient {patient + 1}, {predicted:.0f}: {', '.join(reasons)}, ...")
    gap = (value.sum(1) - (found.predicted - average)).abs().max()
    print(f"completeness error of the values: at most {gap:.1e} points")
    inside = (value - found.exact).abs() <= 2 * stderr
    print(f"two standard errors cover {inside.sum()} of {inside.numel()} exact values")


def draw_global(found: Global, names: list[str], path: Path) -> Path:
    """Draw the loss without each column as a bar, and the values of all patients as dots."""
    figure = new_figure(10, 4.6)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(4, 5))
    order = found.lost.argsort(descending=True)
    labels = [names[i] for i in order.tolist()]
    plot.bar(
        labels,
        found.lost[order],
        error=found.lost_error[order],
        sort=False,
        unit="explained variance lost, in percent of the variance",
        ax=left,
    )
    left.set_title("What would be lost without it?\npermutation importance", fontsize=9)

    draws = torch.Generator().manual_seed(0)
    for place, column in enumerate(order.tolist()):
        values, ranks = found.values[:, column], found.ranks[:, column]
        scatter = 0.5 * torch.rand(len(values), generator=draws) - 0.25
        dots = right.scatter(values, place + scatter, c=ranks, cmap=MAGNITUDE, s=9)
        dots.set(edgecolor="#4b1d91", linewidth=0.3)
    right.axvline(0, color="black", linewidth=0.8, zorder=0)
    right.set_title(
        "Which way does it move a prediction?\nShapley values, a dot per patient", fontsize=9
    )
    right.set_xlabel("points of the disease score, compared with the average", fontsize=8)
    right.tick_params(labelsize=8)
    scale = figure.colorbar(dots, ax=right, ticks=[0, 1], pad=0.02, aspect=30)
    scale.ax.set_yticklabels(["lowest", "highest"], fontsize=8)
    scale.set_label("measurement of the patient", fontsize=8, labelpad=-25)
    figure.supxlabel("Lines: two standard errors to each side, over new patients.", fontsize=8)
    return save(figure, path)


def draw_local(found: Local, names: list[str], average: float, path: Path) -> Path:
    """Draw the values of each patient as bars with intervals, and the exact ones."""
    figure = new_figure(10, 3.8)
    panels = figure.subplots(1, PATIENTS, sharex=True, sharey=True)
    value, stderr, _ = found.sampled
    most = float((value.abs() + 2 * stderr).max())
    for patient, axes in enumerate(panels):
        rise = found.predicted[patient] - average
        plot.bar(
            names,
            value[patient],
            error=stderr[patient],
            sort=False,
            scale=most,
            unit="points",
            ax=axes,
        )
        axes.set_title(
            f"patient {patient + 1}: predicted {found.predicted[patient]:.0f}\n"
            f"average {average:.0f}, the bars add up to {signed_number(rise, '+.0f')}",
            fontsize=9,
        )
        axes.plot(found.exact[patient], range(len(names)), "kD", markersize=3, fillstyle="none")
    figure.supxlabel(
        "Shapley values in points of the disease score: orange raises the prediction, blue lowers "
        f"it. Bars: {ORDERS} random orders of the columns;\nlines: two standard errors to each "
        "side; diamonds: the exact values, from all 1024 coalitions.",
        fontsize=8,
    )
    return save(figure, path)


if __name__ == "__main__":
    main()

"""What do the neurons of a hidden layer do? Their weights do not tell; their conductance does.

python examples/conductance.py [--out FOLDER]

The table is the diabetes set of scikit-learn: ten measurements of 442 patients, and a score of how
far the disease went in the next year. A small network is asked why it predicts more for some
patients than for the average one, and through which neurons of its last hidden layer that goes.
After Kokhlikyan et al. (2020), figure 4, https://arxiv.org/abs/2009.07896.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

import attrib
from diabetes import Table, load
from drawing import SIGNED, new_figure, save, signed_number

NEURONS, PATIENTS = 10, 20
THROUGH, WEIGHT, FROM = "#4b1d91", "#b5b0a6", "#5b5b5b"
LAYER = "3"  # the ReLU behind the last hidden layer

EXPLANATION = """Rows of the table add up to the conductance
of a neuron, columns to the bar of a measurement,
all of it to the rise in the prediction.

A weight says what a neuron can do,
conductance what it did.
{}."""


class Shares(NamedTuple):
    """Means over patients, in points of the score.

    Attributes:
        inputs: Integrated gradients of the measurements (column,).
        neurons: Conductance of the neurons (neuron,).
        both: What comes from a measurement and goes through a neuron (neuron, column).
        rise: How many points more than for the average patient.
    """

    inputs: Tensor
    neurons: Tensor
    both: Tensor
    rise: float


def main() -> None:
    """Train a network, attribute its predictions to columns and to neurons, and draw both."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--out", type=Path, default=Path(__file__).with_name("output"))
    out: Path = arguments.parse_args().out
    torch.set_num_threads(1)  # the network is too small for more
    torch.manual_seed(0)

    table = load()
    model = train(table)
    f = attrib.target(model, lambda points: points[:, 0])
    with torch.no_grad():
        unexplained = (f(table.x_test) - table.y_test).square().mean() / table.y_test.var()
        patients = table.x_test[f(table.x_test).topk(PATIENTS).indices]
        shares = explain(f, patients)
    weights = model[4].weight[0].detach()
    print(f"the network explains {1 - unexplained:.0%} of the variance in new rows")
    print(f"{PATIENTS} patients with the highest predictions: {shares.rise:+.1f} points")
    print(f"  from the measurements: {shares.inputs.sum():+.1f} points")
    print(f"  through the neurons: {shares.neurons.sum():+.1f} points")
    rows = (shares.both.sum(1) - shares.neurons).abs().max()
    columns = (shares.both.sum(0) - shares.inputs).abs().max()
    print(f"rows and columns of the table: at most {max(rows, columns):.2f} points off")
    print(unlike(shares.neurons, weights))
    picture = draw(table.names, shares, weights, out / "conductance.png")
    print("picture:", picture, sep="\n  ")


def explain(f: attrib.types.Score, patients: Tensor) -> Shares:
    """Attribute the scores of patients, from zero, which is the average patient."""
    # Secants add up exactly on a network of ReLUs, whatever the number of steps.
    inputs = attrib.integrated_gradients(f, quadrature="secant")(patients)
    neurons = attrib.conductance(f, LAYER, quadrature="secant")(patients)

    def through(neuron: Tensor) -> Tensor:
        method = attrib.neuron_conductance(f, LAYER, neuron, steps=400, quadrature="midpoint")
        return method(patients)

    both = torch.vmap(through)(torch.arange(NEURONS))
    rise = f(patients) - f(torch.zeros_like(patients))
    return Shares(inputs.mean(0), neurons.mean(0), both.mean(1), float(rise.mean()))


def train(table: Table) -> nn.Sequential:
    """Return a network that predicts the score (row, 1) of the disease."""
    hidden = nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, NEURONS), nn.ReLU()
    model = nn.Sequential(*hidden, nn.Linear(NEURONS, 1), Points())
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(60):
        optimiser.zero_grad()
        error = model(table.x)[:, 0] - table.y
        error.square().mean().div(75**2).backward()
        optimiser.step()
    return model.eval()


class Points(nn.Module):
    """From numbers of the size of one to points of the score."""

    def forward(self, x: Tensor) -> Tensor:
        return 150 + 75 * x


def normalised(values: Tensor) -> Tensor:
    """Return shares, whose sizes add up to one."""
    return values / values.abs().sum()


def unlike(neurons: Tensor, weights: Tensor) -> str:
    """Name the neuron whose weight promises most of what it does not do."""
    weight, conductance = normalised(weights).abs(), normalised(neurons).abs()
    which = int((weight - conductance).argmax())
    return (
        f"neuron {which + 1} has {weight[which]:.0%} of the weight and "
        f"{conductance[which]:.0%} of the conductance"
    )


def draw(names: list[str], shares: Shares, weights: Tensor, path: Path) -> Path:
    """Draw who contributes through whom, and at the sides the sums over either."""
    order = shares.neurons.argsort(descending=True)
    figure = new_figure(11, 6.2)
    grid = figure.add_gridspec(2, 2, width_ratios=(1.9, 1), height_ratios=(1, 2.2))
    middle = figure.add_subplot(grid[1, 0])
    above = figure.add_subplot(grid[0, 0], sharex=middle)
    beside = figure.add_subplot(grid[1, 1], sharey=middle)

    draw_both(middle, names, shares.both[order], order)
    draw_inputs(above, shares.inputs)
    draw_neurons(beside, shares.neurons[order], weights[order])
    corner = figure.add_subplot(grid[0, 1])
    corner.set_axis_off()
    corner.text(
        *(0.5, 0.5, EXPLANATION.format(unlike(shares.neurons, weights).capitalize())),
        transform=corner.transAxes, ha="center", va="center", fontsize=8.5, linespacing=1.5,
    )  # fmt: skip
    figure.suptitle(
        f"{PATIENTS} patients for whom the network predicts {shares.rise:.0f} points more than for "
        "the average one",
        fontsize=11,
    )
    return save(figure, path)


def draw_both(axes: Axes, names: list[str], both: Tensor, order: Tensor) -> None:
    """Draw what comes from each column and goes through each neuron."""
    limit = float(both.abs().max())
    axes.imshow(both.numpy(), cmap=SIGNED, vmin=-limit, vmax=limit, aspect="auto")
    for row, values in enumerate(both):
        for column, value in enumerate(values):
            if abs(value) >= 0.5:
                strong = abs(value) > 0.6 * limit
                text = signed_number(float(value), "+.0f")
                colour = "white" if strong else "black"
                axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right", fontsize=8)
    axes.set_yticks(range(len(order)), [f"neuron {int(n) + 1}" for n in order], fontsize=8)
    axes.set_title("From a measurement through a neuron, in points", fontsize=9)


def draw_inputs(axes: Axes, inputs: Tensor) -> None:
    """Draw the sums over neurons: integrated gradients."""
    bars = axes.bar(range(len(inputs)), inputs.numpy(), color=FROM)
    texts = [signed_number(float(value), "+.0f") for value in inputs]
    axes.bar_label(bars, texts, fontsize=7, padding=1)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.margins(y=0.2)
    axes.tick_params(labelbottom=False, labelsize=8)
    axes.set_ylabel("points", fontsize=8)
    axes.set_title("From which measurements: integrated gradients", fontsize=9)


def draw_neurons(axes: Axes, neurons: Tensor, weights: Tensor) -> None:
    """Draw the sums over columns, conductance, and the weights of the layer behind."""
    places = torch.arange(len(neurons)).numpy()
    axes.barh(places - 0.2, normalised(neurons).numpy(), 0.38, color=THROUGH, label="conductance")
    axes.barh(
        places + 0.2, normalised(weights).numpy(), 0.38, color=WEIGHT, label="weight to the output"
    )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.tick_params(labelleft=False, labelsize=8)
    axes.set_xlabel("share of the layer; sizes add up to 100%", fontsize=8)
    axes.set_title("Through which neurons: conductance", fontsize=9)
    axes.legend(fontsize=8, frameon=False, loc="lower right")


if __name__ == "__main__":
    main()

"""How sure is an attribution? Networks of one ensemble agree on some columns, not on others.

python examples/ensemble.py [--out FOLDER]

The table is the diabetes set of scikit-learn: ten measurements of 442 patients, and a score of how
far the disease went in the next year. The networks are trained, and explained, all at once:
`torch.func.vmap` over their stacked parameters.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

import attrib
from diabetes import Table, load
from drawing import new_figure, save

MEMBERS, PATIENTS = 20, 3
CERTAIN, UNCERTAIN = "#14549c", "#b9d3ea"

Parameters = dict[str, Tensor]


def main() -> None:
    """Train the ensemble, explain some patients with every member, and draw mean and spread."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--out", type=Path, default=Path(__file__).with_name("output"))
    out: Path = arguments.parse_args().out
    torch.set_num_threads(1)  # the networks are too small for more
    torch.manual_seed(0)

    table = load()
    members = train(table)
    patients = table.x_test[:PATIENTS]
    with torch.no_grad():  # with gradients on, every attribution would keep its graph for training
        predictions = vmap(predict, in_dims=(0, None))(members, table.x_test)
        attributions, errors = explain(members, patients)
    unexplained = (predictions.mean(0) - table.y_test).square().mean() / table.y_test.var()
    print(
        f"{MEMBERS} networks; their mean explains {1 - unexplained:.0%} of the variance in new rows"
    )
    print(f"completeness error of their attributions: at most {errors.abs().max():.1e} points")
    for patient in range(PATIENTS):
        mean, std = attributions[:, patient].mean(0), attributions[:, patient].std(0)
        largest = int(mean.abs().argmax())
        points = f"{mean[largest]:+.0f} ± {std[largest]:.0f} points"
        print(f"patient {patient + 1}: most from {table.names[largest]}, {points}")
    picture = draw(table.names, attributions, predictions, out / "ensemble.png")
    print("picture:", picture, sep="\n  ")


def explain(members: Parameters, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return integrated gradients (member, row, column), and completeness errors (member, row)."""

    def by_one(parameters: Parameters) -> tuple[Tensor, Tensor]:
        def f(x: Tensor) -> Tensor:
            return predict(parameters, x)

        attribution = attrib.integrated_gradients(f)(x)  # from zero, which is the average patient
        return attribution, attrib.metrics.completeness(f)(attribution, x)

    return vmap(by_one)(members)


def predict(parameters: Parameters, x: Tensor) -> Tensor:
    """Return the scores (row,) that one member predicts."""
    return 150 + 75 * functional_call(SKELETON, parameters, (x,)).squeeze(-1)


def train(table: Table) -> Parameters:
    """Train every member from its own start, on its own draw of the rows."""
    stacked, _ = stack_module_state([network() for _ in range(MEMBERS)])
    members = {name: leaf.detach().requires_grad_() for name, leaf in stacked.items()}
    rows = torch.randint(len(table.x), (MEMBERS, len(table.x)))  # the bootstrap
    # The members share no parameter, so one optimiser and the sum of their losses train each alone.
    optimiser = torch.optim.AdamW(members.values(), lr=0.01, weight_decay=0.1)
    for _ in range(100):
        optimiser.zero_grad()
        error = vmap(predict)(members, table.x[rows]) - table.y[rows]
        error.square().mean(1).sum().div(75**2).backward()
        optimiser.step()
    return {name: leaf.detach() for name, leaf in members.items()}


def network() -> nn.Module:
    """Return a new member."""
    return nn.Sequential(nn.Linear(10, 16), nn.GELU(), nn.Linear(16, 1))


SKELETON = network()  # lends its structure to the stacked parameters; its own are not used


def draw(names: list[str], attributions: Tensor, predictions: Tensor, path: Path) -> Path:
    """Draw a bar for the mean, a line for one standard deviation, and a dot for each member."""
    figure = new_figure(10, 3.8)
    panels = figure.subplots(1, PATIENTS, sharex=True, sharey=True)
    for patient, axes in enumerate(panels):
        values = attributions[:, patient]
        mean, std = values.mean(0), values.std(0)
        colours = [CERTAIN if certain else UNCERTAIN for certain in mean.abs() > 2 * std]
        axes.barh(names, mean.numpy(), xerr=std.numpy(), color=colours, ecolor="black", capsize=2)
        for member in values:
            places = torch.arange(len(names)) + 0.3
            axes.plot(member.numpy(), places.numpy(), ".", color="#f0a24d", markersize=3, zorder=3)
        axes.axvline(0, color="black", linewidth=0.8)
        score = predictions[:, patient]
        axes.set_title(
            f"patient {patient + 1}: predicted {score.mean():.0f} ± {score.std():.0f}", fontsize=9
        )
        axes.tick_params(labelsize=8)
    panels[0].invert_yaxis()
    figure.supxlabel(
        "Points of the disease score, compared with the average patient. Bar and line: mean and "
        f"standard deviation over {MEMBERS} networks;\norange dots: single networks; dark bars: "
        "the mean is more than two standard deviations from zero.",
        fontsize=8,
    )
    return save(figure, path)


if __name__ == "__main__":
    main()

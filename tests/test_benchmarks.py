"""The benchmarks compare like with like, and say what they measured."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytest.importorskip("captum", reason="the benchmarks need the extra `parity`")

from benchmarks import bench_accuracy, bench_layers, memory, models, report, rows
from benchmarks.harness import (
    CONTENDERS,
    Goal,
    Result,
    Row,
    Settings,
    Spread,
    measure,
    options,
    ratios,
    same_evaluations,
    same_in_the_mean,
    spread,
    standard_errors,
    wall_can_be_published,
    within,
)
from benchmarks.models import Workload

# Captum warns whenever it sets requires_grad itself, which is how it is meant to be called.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Input Tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:`max_examples_per_batch` must be:UserWarning"),
    pytest.mark.filterwarnings("ignore:Setting (forward, )?backward hooks:UserWarning"),
]

SHORT = Settings(rounds=3, least_rounds=3, budget=0.0, block=0.0)


def tiny(row: Row) -> Workload:
    """A workload of the kind the row's model is of, small enough for a test."""
    if row.model.startswith("mlp"):
        return models.build(row.model).head(3)
    if row.model == "bert":
        encoder = lambda: models.Encoder(layers=1, width=12, heads=2)
        return models.random_workload("tiny", encoder, 2, 4, 12)
    pool = torch.nn.AvgPool2d if row.model == "cnn-average" else torch.nn.MaxPool2d
    network = lambda: models.SmallCnn(width=3, pool=pool)
    return models.random_workload("tiny", network, 2, 3, 32, 32)


def number(value: float) -> Callable[[Workload], Callable[[], Tensor]]:
    return lambda workload: lambda: torch.full_like(workload.x, value)


def row_of(attrib: float, captum: float, limit: float) -> Row:
    return Row(
        method="a constant",
        model="mlp",
        attrib=number(attrib),
        captum=number(captum),
        limit={"only": number(limit)},
        check=same_evaluations(),
    )


# The rows compare like with like.


FEW_STEPS = [row for row in rows.TIMED if "300 steps" not in row.method]


@pytest.mark.parametrize("row", FEW_STEPS, ids=lambda row: row.key)
def test_every_variant_of_every_contender_computes_the_same(row: Row) -> None:
    workload = tiny(row)
    trusted = next(iter(row.limit.values()))
    with torch.no_grad():
        judge = row.check.prepare(workload, trusted)
        for contender in CONTENDERS:
            gaps = {name: judge(make).gap for name, make in row.variants(contender).items()}
            if gaps and row.check.selects and contender in ("tuned", "limit"):
                gaps = {"the best": min(gaps.values())}
            for label, gap in gaps.items():
                assert gap <= row.check.tolerance, (contender, label)


@pytest.mark.parametrize("model", ["mlp", "mlp-gelu"])
def test_conductance_is_nearer_to_the_integral_than_captum_s_at_every_number_of_steps(
    model: str,
) -> None:
    references = (2**11, 2**12)
    found = bench_layers.conductance_errors(model, references=references, batch=8, rounds=1)
    captum = found.found["Captum"]
    assert found.floor * bench_accuracy.FLOOR < min(captum)
    for way in ("attrib", "attrib, secant", "attrib, exact derivative"):
        pairs = zip(found.found[way], captum, strict=True)
        assert all(own < other for own, other in pairs), way


def test_rows_have_different_keys() -> None:
    table = rows.every_row()
    assert all(table[row.key] is row for row in rows.TIMED)


def test_attrib_is_given_no_option_of_speed_or_memory() -> None:
    source = Path(rows.__file__).with_name("with_attrib.py").read_text()
    assert "chunk_size" not in source


@pytest.mark.parametrize("name", models.WORKLOADS)
def test_a_workload_is_the_same_at_every_build(name: str) -> None:
    if name == "vgg19":
        pytest.skip("half a gigabyte of weights")
    state = torch.get_rng_state()
    one, two = models.build(name), models.build(name)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.x, two.x)
    for left, right in zip(one.model.parameters(), two.model.parameters(), strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("name", ["mlp", "cnn", "bert"])
def test_rows_of_a_batch_do_not_interact(name: str) -> None:
    workload = models.build(name).double()
    with torch.no_grad():
        together = workload.model(workload.x)
        alone = workload.model(workload.head(1).x)
    torch.testing.assert_close(together[:1], alone)


# The harness.


def test_a_contender_that_disagrees_is_not_timed() -> None:
    workload = models.build("mlp").head(2)
    result = measure(row_of(attrib=1.0, captum=1.001, limit=1.0), workload, SHORT)
    assert result.failure is not None
    assert "captum" in result.failure
    assert result.cpu == {}


def test_contenders_run_in_turns_and_each_goes_first() -> None:
    order: list[str] = []

    def noting(name: str) -> Callable[[Workload], Callable[[], Tensor]]:
        def make(workload: Workload) -> Callable[[], Tensor]:
            def call() -> Tensor:
                order.append(name)
                return workload.x

            return call

        return make

    row = Row(
        method="a note",
        model="mlp",
        attrib=noting("attrib"),
        captum=noting("captum"),
        limit={"": noting("limit")},
        check=same_evaluations(),
    )
    result = measure(row, models.build("mlp").head(2), SHORT)
    names = ["attrib", "captum", "limit"]
    last_rounds = [order[-9:-6], order[-6:-3], order[-3:]]
    assert last_rounds == [names, names[1:] + names[:1], names[2:] + names[:2]]
    assert all(len(result.cpu[name]) == len(result.wall[name]) == 3 for name in names)


def test_every_contender_runs_without_gradients() -> None:
    seen: list[bool] = []

    def make(workload: Workload) -> Callable[[], Tensor]:
        def call() -> Tensor:
            seen.append(torch.is_grad_enabled())
            return workload.x

        return call

    row = Row("a mode", "mlp", make, same_evaluations(), limit={"": make})
    measure(row, models.build("mlp").head(2), SHORT)
    assert seen
    assert not any(seen)


def test_only_variants_that_are_accurate_enough_are_chosen() -> None:
    row = Row(
        method="a number",
        model="mlp",
        attrib=number(1.0),
        tuned={"wrong": number(2.0), "right": number(1.0)},
        limit={"right": number(1.0)},
        check=within(1e-5, number(1.0)),
    )
    result = measure(row, models.build("mlp").head(2), SHORT)
    assert result.failure is None
    assert result.labels["tuned"] == "right"


def test_a_row_with_nothing_to_compare_with_is_refused() -> None:
    row = Row("alone", "mlp", number(1.0), same_evaluations())
    with pytest.raises(ValueError, match="nothing to compare with"):
        measure(row, models.build("mlp").head(2), SHORT)


def drawn(mean: float) -> Callable[[Workload], Callable[[], Tensor]]:
    return lambda workload: lambda: mean + torch.randn_like(workload.x)


@pytest.mark.parametrize(("mean", "agrees"), [(0.0, True), (1.0, False)])
def test_random_contenders_are_compared_in_the_mean(mean: float, agrees: bool) -> None:
    check = same_in_the_mean(draws=30)
    judge = check.prepare(models.build("mlp").head(8), drawn(0.0))
    assert (judge(drawn(mean)).gap <= check.tolerance) is agrees


def test_means_of_one_law_lie_about_one_standard_error_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 50, 4000, generator=generator)
    # The squared distance over its expectation has standard deviation sqrt(2 / 4000) = 0.022.
    assert standard_errors(one, 3 + other) > 10
    assert abs(standard_errors(one, other) - 1) < 0.06


def test_ratios_are_taken_within_rounds() -> None:
    # A round in which the machine is ten times slower hits both alike.
    assert spread(ratios([2.0, 20.0, 2.0], [1.0, 10.0, 1.0])) == Spread(2.0, 2.0, 2.0)
    with pytest.raises(ValueError, match="zip"):
        ratios([1.0], [1.0, 2.0])


def test_wall_time_is_withheld_on_a_crowded_machine() -> None:
    assert wall_can_be_published(load=1.9, cores=2)
    assert not wall_can_be_published(load=2.1, cores=2)
    result = replace(timed(row_of(1.0, 1.0, 1.0)), load=1000.0)
    assert "load 1000.0" in report.markdown({}, [result], [], [], {})


def test_options_are_every_combination() -> None:
    def make(workload: Workload, *, rows: int, layout: str) -> Callable[[], Tensor]:
        return lambda: torch.tensor([float(rows), len(layout)])

    found = options(make, rows=(1, 2), layout=("a", "bb"))
    assert list(found) == [
        "rows=1, layout=a",
        "rows=1, layout=bb",
        "rows=2, layout=a",
        "rows=2, layout=bb",
    ]
    workload = models.build("mlp").head(1)
    assert found["rows=2, layout=bb"](workload)().tolist() == [2.0, 2.0]


# The report.


def timed(row: Row) -> Result:
    return Result(
        row,
        cpu={"attrib": [1.0, 1.0], "captum": [4.0, 2.0], "limit": [0.5, 0.5]},
        wall={"attrib": [1.0, 1.0], "captum": [4.0, 2.0], "limit": [0.5, 0.5]},
    )


def test_goals_are_judged_by_the_median() -> None:
    row = replace(row_of(1.0, 1.0, 1.0), goal=Goal(captum=3.0, tuned=3.5, limit=1.9))
    assert report.verdicts(timed(row)) == [
        ("captum", 3.0, Spread(3.0, 2.0, 4.0), True),
        ("tuned", 3.5, Spread(3.0, 2.0, 4.0), False),
        ("limit", 1.9, Spread(2.0, 2.0, 2.0), False),
    ]


def test_every_line_of_a_table_has_the_cells_of_its_head() -> None:
    row = replace(row_of(1.0, 1.0, 1.0), goal=Goal(captum=3.0, limit=1.9))
    results = [timed(row), Result(row, failure="captum disagrees: 1.0e-03")]
    sizes: dict[str, int | None] = {"attrib": 10, "captum": 100, "limit": None}
    flatness = report.Flatness("mlp", 2, sizes, sizes, dict.fromkeys(sizes, ""))
    errors = report.Errors(
        "mlp", 1e-9, {"midpoint": [None, *(1.0 / n for n in bench_accuracy.STEPS[1:])]}
    )
    text = report.markdown({"cores": "2"}, results, [flatness], [errors], {"saliency": 2e-6})
    assert "captum disagrees" in text
    for part in text.split("\n\n"):
        lines = [line for line in part.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1


def test_an_error_near_the_reference_s_own_is_only_bounded() -> None:
    errors = report.Errors("mlp", 1e-3, {"good": [1.0, 4e-3], "wrong": [1.0, 0.9]})
    assert errors.told("good") == ["1.0e+00", "< 5e-03"]
    assert errors.stuck("wrong")
    assert not errors.stuck("good")


def test_what_was_measured_is_plain_data() -> None:
    found = report.plain(report.machine(), [timed(row_of(1.0, 1.0, 1.0))], [], [], {})
    assert json.loads(json.dumps(found)) == found


# Memory.


@pytest.mark.skipif(not memory.STATUS.exists(), reason="reads /proc")
def test_memory_tells_all_steps_at_once_from_a_few() -> None:
    key = "IG, 50 steps / mlp"
    row = rows.every_row()[key]
    # Each of the 512 x 50 rows holds two hidden layers of 64 float32, 512 bytes, on the way.
    held = 512 * 50 * 2 * 64 * 4
    label = next(iter(row.limit))
    chunked = memory.peak_growth(key, "limit", label)
    at_once = memory.peak_growth(key, "captum", "")
    assert chunked is not None
    assert at_once is not None
    assert at_once > held > 2 * chunked


def test_a_contender_that_dies_has_no_memory() -> None:
    assert memory.peak_growth("no such row", "attrib", "") is None


def test_numpy_has_one_thread_where_it_was_not_told_otherwise() -> None:
    assert os.environ["OPENBLAS_NUM_THREADS"]

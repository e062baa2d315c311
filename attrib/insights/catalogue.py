"""What can be asked of a study: its methods with their forms, and what fits which model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from attrib._checks import check_callable
from attrib.errors import AttribValueError
from attrib.insights.binding import Place, players_of
from attrib.insights.field import Field, Setting
from attrib.insights.fitting import reason
from attrib.insights.forms import arguments, fields
from attrib.insights.heads import Head
from attrib.insights.protocol import Failure
from attrib.insights.registry import GROUPS, METHODS, Method, summary, unknown
from attrib.insights.sites import sites_of
from attrib.insights.study import Sample, Study, sample_of
from attrib.insights.task import baseline_choices

__all__ = ["Catalogue"]

PREFERRED = (
    "integrated_gradients",
    "saliency",
    "kernel_shap",
    "feature_ablation",
)
"""Which method is shown first, if it fits."""


class Catalogue:
    """The methods of a study.

    Args:
        study: The study.

    Raises:
        AttribValueError: If the study names a method that does not exist.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._methods = _chosen(study.methods)
        self._first = sample_of(study, 0) if len(study.data) else None
        self._forms: dict[str, list[Field]] = {}
        self._reasons: dict[str, dict[str, str | None]] = {}
        leaves = self._first.leaves if self._first else ()
        setting = Setting(study.features, leaves, study.models)
        for name, method in self._methods.items() if leaves else ():
            found: dict[str, str | None] = {
                m: reason(method, study, f, self._first) for m, f in study.models.items()
            }
            try:
                self._forms[name] = fields(method, setting)
            except Failure as failure:
                found = {model: str(failure) for model in study.models}
                self._forms[name] = []
            self._reasons[name] = found

    def method(self, name: str, model: str) -> tuple[Method, list[Field]]:
        """A method and its form.

        Raises:
            Failure: If there is no such method, or it does not fit the model.
        """
        if name not in self._forms:
            raise Failure("field", f"{name[:60]}: there is no such method", field="method")
        why = self._reasons[name][model]
        if why is not None:
            title = self._methods[name].title
            raise Failure("field", f"{title}: {why}", field="method")
        return self._methods[name], self._forms[name]

    def baseline(self, given: Mapping[str, str]) -> dict[str, str]:
        """The name of a baseline for every feature: what was given, else the first.

        Raises:
            Failure: If there is no such feature or baseline.
        """
        found: dict[str, str] = {}
        for name in given:
            if name not in self._study.features:
                raise Failure("field", f"{name[:60]}: there is no such input", field="baseline")
        for name in self._study.features:
            choices = baseline_choices(self._study, name)
            found[name] = given.get(name, next(iter(choices)))
            if found[name] not in choices:
                raise Failure(
                    "field", f"{name}: must be one of {', '.join(choices)}", field="baseline"
                )
        return found

    def config(self, heads: Mapping[str, Head | None], limits: Any, debug: bool) -> dict[str, Any]:
        """Everything that the front end has to know before the first sample."""
        study = self._study
        head = next((head for head in heads.values() if head is not None), None)
        names = None if study.classes is None else list(study.classes)
        if names is None and head is not None and head.task == "classes":
            names = [str(index) for index in range(head.outputs)]
        default = self.default()
        entries = [self._entry(method) for method in self._ordered()]
        costs = [
            cost
            for entry in entries
            if entry["name"] == default["method"]
            for cost in entry["passes"].values()
            if cost is not None
        ]
        return {
            "type": "config",
            "study": {
                "name": study.name,
                "samples": len(study.data),
                "classes": names,
                "task": "classes" if head is None else head.task,
                "n_top": study.n_top,
                "outputs": None if head is None else head.outputs,
            },
            "models": [
                {"name": name, "sites": sites_of(model)} for name, model in study.models.items()
            ],
            "features": [
                {"name": name, **feature.config()} for name, feature in study.features.items()
            ],
            "methods": entries,
            "default": default,
            "baselines": {
                name: [
                    {"name": choice, "title": choice} for choice in baseline_choices(study, name)
                ]
                for name in study.features
            },
            "limits": {"page": 48, "passes": limits.passes, "auto": limits.auto_passes},
            "auto": all(cost <= limits.auto_passes for cost in costs),
            "debug": debug,
            "version": import_module("attrib").__version__,
        }

    def _ordered(self) -> list[Method]:
        return sorted(
            (self._methods[name] for name in self._forms),
            key=lambda method: GROUPS.index(method.group),
        )

    def default(self) -> dict[str, Any]:
        """The method that is shown first, if any fits."""
        fitting = [name for name in self._forms if None in self._reasons[name].values()]
        own = [name for name in fitting if self._methods[name].group == "yours"]
        name = next((name for name in (*PREFERRED, *own, *fitting) if name in fitting), None)
        return {"method": name, "args": {}, "baseline": {}}

    def _entry(self, method: Method) -> dict[str, Any]:
        form = self._forms[method.name]
        why = self._reasons[method.name]
        return {
            "name": method.name,
            "title": method.title,
            "group": method.group,
            "summary": summary(method.make),
            "complete": method.complete,
            "signed": method.signed,
            "baseline": method.complete or method.grouped or "baseline" in _words(method),
            "fields": [field._asdict() for field in form],
            "models": why,
            "passes": {
                model: self.cost(method.name, model, {}) if why[model] is None else None
                for model in self._study.models
            },
        }

    def cost(self, name: str, model: str, given: Mapping[str, Any]) -> int | None:
        """About how often a method evaluates a model for one sample, if that can be told.

        Raises:
            Failure: As for `method`, and if an option is not what it should be.
        """
        method, form = self.method(name, model)
        sample = self._first or Sample((), (), None)
        batch = tuple(leaf[None] for leaf in sample.leaves)
        place = Place(Setting(self._study.features, sample.leaves, {}), batch)
        args = arguments(form, given, model, sites_of(self._study.models[model]))
        try:
            passes = method.passes(args, players_of(args, place))
        except KeyError:
            return None  # a function of the user's own, whose options are not known
        return round(passes) if math.isfinite(passes) else None


def _words(method: Method) -> str:
    return method.make.__doc__ or ""


def _chosen(given: Any) -> dict[str, Method]:
    """The methods that a study asks for."""
    if given is None:
        return dict(METHODS)
    if isinstance(given, Mapping):
        named: Any = given.items()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        found: dict[str, Method] = {}
        for name, make in named:
            check_callable(make, f"methods[{name!r}]", "pass a function of a score, like attrib's")
            known = METHODS.get(name)
            own = Method(str(name), make, "yours", passes=unknown)
            found[str(name)] = known if known is not None and known.make is make else own
        return found
    names: list[Any] = [given] if isinstance(given, str) else list(given)
    strangers = [name for name in names if name not in METHODS]
    if strangers or isinstance(given, str):
        raise AttribValueError(
            "methods: must be names of methods or functions by name, got "
            f"{strangers[:3] or given!r}",
            code="methods.unknown",
        )
    return {name: METHODS[name] for name in names}

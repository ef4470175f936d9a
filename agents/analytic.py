"""What an analytic is: a name, parameters, what it reads and what it makes, and how an engine of it is built."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from agents.engine import Engine
from agents.plan import Plan, Site, World
from isotherm.clock import duration_us
from isotherm.errors import SettingsError
from isotherm.names import is_metric_name
from isotherm.settings import Settings
from isotherm.store.client import Client

Parameters = Mapping[str, Any]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


def _seconds(given: object) -> object:
    """Understand ``5min`` as well as 300."""
    return duration_us(given) / 1e6 if isinstance(given, str) and not given.replace(".", "", 1).isdigit() else given


Seconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0, allow_inf_nan=False)]
"""A parameter that is a length of time: seconds, or a text such as ``5min``."""


class Build(Protocol):
    """Makes an engine for one partition."""

    def __call__(self, name: str, parameters: Any) -> Engine: ...


@dataclass(frozen=True, slots=True)
class Analytic:
    """A declared analytic.

    Attributes:
        name: What it is called unless it is enabled under another name.
        text: What it does, for people.
        model: Its parameters, with types, defaults and limits.
        build: Makes an engine.
        inputs: Parameters → patterns of the series it reads.
        outputs: Parameters → metric it makes → unit; ``{metric}`` stands for the metric of the reading that it came from.
        needs_all_inputs: It makes nothing where one of its inputs is missing.
        is_order_insensitive: The order in which readings arrive does not matter to it.
        world: Makes what its engines have to know beside readings, if there is something.
        plan: Makes what is done instead of bringing readings through engines.
    """

    name: str
    text: str
    model: type[BaseModel]
    build: Build
    inputs: Callable[[Any], Sequence[str]]
    outputs: Callable[[Any], Mapping[str, str]] = field(default=lambda _: {})
    needs_all_inputs: bool = False
    is_order_insensitive: bool = False
    world: Callable[[Settings, Client], World] | None = None
    plan: Callable[[Site], Plan] | None = None

    def parameters(self, given: Parameters) -> BaseModel:
        """Return checked parameters.

        Raises:
            SettingsError: there is no such parameter, or its value is impossible.
        """
        try:
            parameters = self.model(**given)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                known = ", ".join(self.model.model_fields) or "it has none"
                raise SettingsError(f"{self.name} has no parameter {name!r}: {known}") from error
            what = first["msg"].removeprefix("Value error, ")
            raise SettingsError(f"parameter {name} of {self.name} is {first.get('input')!r}: {what}") from error
        for metric in self.outputs(parameters):
            if not is_metric_name(metric.replace("{metric}", "m")):
                raise SettingsError(f"{self.name} makes {metric!r}, which is no name of a metric")
            if metric == "{metric}":
                raise SettingsError(f"{self.name} makes a metric of the same name as what it reads: give it another output")
        return parameters


def check_name(name: str) -> str:
    """Return a name that an analytic may have.

    Raises:
        SettingsError: it may not.
    """
    if not _NAME.fullmatch(name):
        raise SettingsError(f"{name!r} is no name of an analytic: a–z, 0–9 and _, the first a letter, at most 40")
    return name


def parameters_of(function: Callable[..., Any], **more: Any) -> type[BaseModel]:
    """Return the model of a function's parameters: its keyword-only arguments, and some that every form has.

    Raises:
        SettingsError: one has no type or no default.
    """
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = dict(more)
    for name, one in inspect.signature(function).parameters.items():
        if one.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        if name not in hints or one.default is inspect.Parameter.empty:
            raise SettingsError(f"parameter {name} of {function.__name__} needs a type and a default: {name}: float = 1.0")
        fields[name] = (hints[name], one.default)
    config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)
    return create_model(function.__name__, __config__=config, **fields)


def own_parameters(function: Callable[..., Any], parameters: BaseModel) -> dict[str, Any]:
    """Return the parameters that a function is called with."""
    names = [name for name, one in inspect.signature(function).parameters.items() if one.kind is one.KEYWORD_ONLY]
    return {name: getattr(parameters, name) for name in names}


def text_of(function: Callable[..., Any]) -> str:
    """Return what a function says it does."""
    return inspect.cleandoc(function.__doc__ or "")

"""An expression of the user's own."""

from collections.abc import Callable

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from agents import Analytic, Seconds
from agents.engines.formula import FormulaEngine, each_row
from isotherm.errors import SettingsError
from isotherm.expression import Expression
from isotherm.names import is_metric_name


class Parameters(BaseModel):
    """Parameters. No expression and no output is right for everyone: their defaults are refused."""

    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)

    expression: str = ""
    output: str = ""
    unit: str = ""
    max_age: Seconds = 600.0

    @field_validator("expression")
    @classmethod
    def _can_be_read(cls, text: str) -> str:
        if not text:
            raise ValueError('say what to compute: --set expression="power/(voltage*current)"')
        try:
            variables = Expression.parse(text).variables
        except SettingsError as error:
            raise ValueError(str(error)) from error
        if not variables:
            raise ValueError("it names no metric, so nothing would ever come of it")
        return text

    @field_validator("output")
    @classmethod
    def _is_new(cls, output: str, info: ValidationInfo) -> str:
        if not is_metric_name(output):
            raise ValueError("name the metric that is made: --set output=power_factor")
        if "expression" in info.data and output in Expression.parse(info.data["expression"]).variables:
            raise ValueError("the expression reads a metric of that name: give what is made another one")
        return output


def _build(name: str, parameters: Parameters) -> FormulaEngine:
    expression = Expression.parse(parameters.expression)
    inputs = [_is_metric(variable) for variable in expression.variables]
    function = each_row(expression.function)
    return FormulaEngine(function, inputs, parameters.output, parameters.unit, round(parameters.max_age * 1e6))


def _is_metric(metric: str) -> Callable[[str], bool]:
    """Return what tells whether a series is of a metric: of that name, not only with an end like it."""
    return lambda series: series.partition("/")[2] == metric


expression = Analytic(
    name="expression",
    text="""Any expression over the metrics of one device, such as power/(voltage*current).

    ``expression`` is the formula, see isotherm.expression for what it may hold; ``output`` is the metric that is made and
    ``unit`` its unit (RFC 8428). Whenever one of the metrics comes, the newest of each are taken, if none is older than
    ``max_age`` (s). Where the expression has no value (a division by zero) there is no reading.""",
    model=Parameters,
    build=_build,
    inputs=lambda parameters: [f"*/{variable}" for variable in Expression.parse(parameters.expression).variables],
    outputs=lambda parameters: {parameters.output: parameters.unit},
)

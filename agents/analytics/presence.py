"""Presence of devices."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from agents import Analytic, Seconds
from agents.presence import Limits, PresenceEngine


class Parameters(BaseModel):
    """Parameters."""

    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)

    late_after: Annotated[float, Field(gt=1, le=1e6)] = 3.0
    offline_after: Annotated[float, Field(gt=1, le=1e6)] = 10.0
    least_late: Seconds = 5.0
    least_offline: Seconds = 30.0

    @field_validator("offline_after", "least_offline")
    @classmethod
    def _is_not_before_late(cls, value: float, info: ValidationInfo) -> float:
        late = str(info.field_name).replace("offline", "late")
        if value < info.data.get(late, 0.0):
            raise ValueError(
                f"expected at least {late}, which is {info.data[late]:g}: a device is late before it is offline"
            )
        return value


def _build(name: str, parameters: Any) -> PresenceEngine:
    return PresenceEngine(
        Limits(
            late_after=parameters.late_after,
            offline_after=parameters.offline_after,
            least_late=round(parameters.least_late * 1e6),
            least_offline=round(parameters.least_offline * 1e6),
        )
    )


presence = Analytic(
    name="presence",
    text="""Which devices are there: online, late or offline, each judged by its own cadence.

    The cadence is the median of the last 15 intervals between arrivals, by the server's clock; of a device that was heard
    of once it is taken to be 60 s. Without anything for ``late_after`` cadences a device is late, and for ``offline_after``
    it is offline, but not before ``least_late`` and ``least_offline`` (s). Each change is an event. Source of the idea: the
    median is the most robust estimate of location (Huber, Robust Statistics, 1981, ch. 1).""",
    model=Parameters,
    build=_build,
    inputs=lambda _: ["*"],
)

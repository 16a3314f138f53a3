"""The conditions of all kinds, in the form of metav1.Condition."""

from pydantic import Field

from rescheduler.api.scalars import Model, Time


class Condition(Model):
    """A condition: one aspect of the state of an object."""

    type: str = Field(description="Type of the condition.", json_schema_extra={"maxLength": 316})
    status: str = Field(description="True, False or Unknown.", json_schema_extra={"enum": ["True", "False", "Unknown"]})
    reason: str = Field(
        default="", description="Reason for the status, as one CamelCase word.", json_schema_extra={"maxLength": 1024}
    )
    message: str = Field(
        default="", description="Human-readable explanation of the reason.", json_schema_extra={"maxLength": 32768}
    )
    last_transition_time: Time = Field(description="When the status last changed.")
    observed_generation: int | None = Field(
        default=None, description="Generation of the object that the condition describes."
    )

"""metav1.Condition."""

from pydantic import Field

from rescheduler.api.scalars import Model, Time


class Condition(Model):
    """One aspect of an object's state."""

    type: str = Field(description="Name of the aspect.", json_schema_extra={"maxLength": 316})
    status: str = Field(description="True, False or Unknown.", json_schema_extra={"enum": ["True", "False", "Unknown"]})
    reason: str = Field(
        default="", description="One CamelCase word that says why.", json_schema_extra={"maxLength": 1024}
    )
    message: str = Field(default="", description="The same for people.", json_schema_extra={"maxLength": 32768})
    last_transition_time: Time = Field(description="When the status last changed.")
    observed_generation: int | None = Field(
        default=None, description="The generation of the object that this was seen on."
    )

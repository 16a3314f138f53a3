"""Maintenance windows: five-field cron with the rules of Debian's cron, also when daylight saving time changes."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import Field
from pydantic.config import JsonDict

from rescheduler.api.scalars import POSITIVE_DURATION_RULE, Duration, Model

_DST_MARGIN = timedelta(hours=1, minutes=1)
_MINUTE = r"([0-5]?[0-9])"
_HOUR = r"([01]?[0-9]|2[0-3])"
_DAY = r"(0?[1-9]|[12][0-9]|3[01])"
_MONTH = r"(0?[1-9]|1[0-2]|JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC)"
_WEEKDAY = r"([0-7]|SUN|MON|TUE|WED|THU|FRI|SAT)"


_STEP_PATTERNS = ("[1-9]|[1-5][0-9]", "[1-9]|1[0-9]|2[0-3]", "[1-9]|[12][0-9]|3[01]", "[1-9]|1[0-2]", "[1-7]")


def _field_pattern(value: str, step: str) -> str:
    one = rf"(\*|{value}(-{value})?)(/({step}))?"
    return rf"{one}(,{one})*"


CRON_PATTERN = (
    "^(?i:"
    + " +".join(
        _field_pattern(*field) for field in zip((_MINUTE, _HOUR, _DAY, _MONTH, _WEEKDAY), _STEP_PATTERNS, strict=True)
    )
    + ")$"
)
"""Five-field cron, with names in upper or lower case. No macros such as @daily."""
_CRON_RULE: JsonDict = {
    # A check for ranges that run backwards (22-6) exceeds the cost budget of CEL rules. Window.opening raises for them.
    "rule": f"self.matches(r'{CRON_PATTERN}')",
    "message": "must be five-field cron (minute hour day month weekday), such as 0 22 * * SAT; no @daily",
}


class Window(Model):
    """A maintenance window: it opens by cron and stays open for `duration`."""

    schedule: str = Field(
        description="When the window opens: five-field cron, such as `0 22 * * SAT`.",
        json_schema_extra={"maxLength": 128, "x-kubernetes-validations": [_CRON_RULE]},
    )
    duration: Duration = Field(
        description="How long the window stays open, such as 4h.",
        json_schema_extra={"x-kubernetes-validations": [POSITIVE_DURATION_RULE]},
    )
    time_zone: str = Field(
        default="UTC",
        description="IANA time zone of the schedule, such as Europe/Berlin.",
        max_length=64,
        pattern=r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$",
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "self.lowerAscii() != 'local'",
                    "message": "must be an IANA time zone: Local depends on the machine that the operator runs on",
                }
            ]
        },
    )

    def opening(self, now: datetime, *, ahead: bool) -> datetime | None:
        """Return the last opening up to `now`, or, with `ahead`, the first after it. None: no opening within 50 years.

        Raises ValueError that names the error, for instance a range that runs backwards, which the schema admits.
        """
        return _opening(self.schedule, self.time_zone, now.replace(second=0, microsecond=0), ahead=ahead)


@lru_cache(maxsize=1024)
def _opening(schedule: str, time_zone: str, minute: datetime, *, ahead: bool) -> datetime | None:
    """Return the opening as `Window.opening` does, for a whole minute.

    CronSim uses local time, in which an hour occurs twice when daylight saving time ends. The search therefore begins
    an hour too early or too late, and skips openings on the wrong side.
    """
    start = minute - _DST_MARGIN if ahead else minute + _DST_MARGIN
    try:
        for local_time in CronSim(schedule.upper(), start.astimezone(ZoneInfo(time_zone)), reverse=not ahead):
            opening = local_time.astimezone(UTC)
            if (opening > minute) == ahead:
                return opening
    except CronSimError as error:
        backwards = "; no range may run backwards: write 22-6 as 22-23,0-6, and SAT-SUN as SAT,SUN"
        raise ValueError(f"schedule {schedule!r:.130}: {error!s:.200}{backwards if '-' in schedule else ''}") from error
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:  # OSError: the name of a whole region, such as Europe
        raise ValueError(f"timeZone {time_zone!r:.70} is not known to the operator") from error
    return None

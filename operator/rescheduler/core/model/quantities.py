"""Quantities of the API (`500m`, `1.5Gi`, `2e3`) as whole numbers, rounded up as in the scheduler.

CPU is in thousandths of a core, every other resource in units.
"""

import re
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache

CPU = "cpu"
MEMORY = "memory"
PODS = "pods"

_BINARY_SUFFIXES = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL_SUFFIXES = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_QUANTITY = re.compile(
    r"([+-]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40}))(|[KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,10})"
)
_MAX_EXPONENT = 60
MAX_QUANTITY = 2**63 - 1
"""The highest quantity that Kubernetes stores."""
_BINARY_UNITS = (("Ei", 2**60), ("Pi", 2**50), ("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10))


@lru_cache(maxsize=10_000)
def parse_quantity(resource: str, text: str | float, default: int = MAX_QUANTITY) -> int:
    """Parse a quantity, limited to 0 and MAX_QUANTITY, the cap of Kubernetes; return `default` if it is unreadable.

    An unreadable request counts as MAX_QUANTITY by default, so that no plan promises room for it.
    """
    value = _parse(str(text))
    if value is None:
        return default
    scaled = value * (1000 if resource == CPU else 1)
    return int(min(max(scaled, Decimal(0)), Decimal(MAX_QUANTITY)).to_integral_value(ROUND_CEILING))


def _parse(text: str) -> Decimal | None:
    if not (match := _QUANTITY.fullmatch(text)):
        return None
    number, suffix = Decimal(match[1]), match[2]
    if suffix in _BINARY_SUFFIXES:
        return number * Decimal(1024) ** _BINARY_SUFFIXES[suffix]
    if suffix in _DECIMAL_SUFFIXES:
        return number.scaleb(_DECIMAL_SUFFIXES[suffix])
    # Without the limit, a large exponent would build a number with as many digits.
    return number.scaleb(min(max(int(suffix[1:] or 0), -_MAX_EXPONENT), _MAX_EXPONENT))


def format_quantity(resource: str, value: int) -> str:
    """Return the quantity in the notation of Kubernetes, such as `500m` or `1.5Gi`."""
    if resource == CPU:
        return f"{value // 1000}" if value % 1000 == 0 else f"{value}m"
    if resource == MEMORY or resource.startswith(("ephemeral-storage", "hugepages-")):
        for suffix, size in _BINARY_UNITS:
            if value >= size:
                return f"{value / size:.4g}{suffix}"
    return str(value)

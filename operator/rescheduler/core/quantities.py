"""Quantities of the API (`500m`, `1.5Gi`, `2e3`) as whole numbers, rounded up as the scheduler does.

CPU counts in thousandths; everything else in units.
"""

from decimal import ROUND_CEILING, Decimal
from functools import lru_cache

CPU = "cpu"
MEMORY = "memory"
PODS = "pods"

_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_STEPS = (("Ei", 2**60), ("Pi", 2**50), ("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10))


@lru_cache(maxsize=10_000)
def amount(resource: str, text: str | float) -> int:
    """How much of the resource this is. Raises ValueError where it is no quantity."""
    value = _parse(str(text)) * (1000 if resource == CPU else 1)
    return int(value.to_integral_value(ROUND_CEILING))


def _parse(text: str) -> Decimal:
    number, factor = text, Decimal(1)
    if text[-2:] in _BINARY:
        number, factor = text[:-2], Decimal(1024) ** _BINARY[text[-2:]]
    elif text[-1:] in _DECIMAL:
        number, factor = text[:-1], Decimal(10) ** _DECIMAL[text[-1]]
    try:
        return Decimal(number) * factor
    except ArithmeticError:
        raise ValueError(f"{text!r} is no quantity") from None


def said(resource: str, value: int) -> str:
    """The amount for people."""
    if resource == CPU:
        return f"{value // 1000}" if value % 1000 == 0 else f"{value}m"
    if resource == MEMORY or resource.startswith(("ephemeral-storage", "hugepages-")):
        for suffix, size in _STEPS:
            if value >= size:
                return f"{value / size:.4g}{suffix}"
    return str(value)

"""Extra spec operators: Nova's syntax for requirements on aggregate metadata (`>= 4`, `s== ssd`, `<or> a <or> b`)."""

import operator
from collections.abc import Callable

_TEXT_OPERATORS: dict[str, Callable[[str, str], bool]] = {
    "s==": operator.eq,
    "s!=": operator.ne,
    "s<": operator.lt,
    "s<=": operator.le,
    "s>": operator.gt,
    "s>=": operator.ge,
    "<in>": lambda value, wanted: wanted in value,
}
_NUMBER_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
}


def matches(value: str, requirement: str) -> bool:
    """Return whether the value meets the requirement. `=` means at least; no operator means equal texts."""
    first, *rest = requirement.split() or [""]
    if first == "<or>":
        return value in [word.strip() for word in requirement.split("<or>")[1:]]
    if first == "<all-in>":
        return bool(rest) and all(word in value for word in rest)
    if first in _TEXT_OPERATORS and rest:
        return _TEXT_OPERATORS[first](value, rest[0])
    if first in _NUMBER_OPERATORS and rest:
        try:
            return _NUMBER_OPERATORS[first](float(value), float(rest[0]))
        except ValueError:
            return False
    return value == requirement

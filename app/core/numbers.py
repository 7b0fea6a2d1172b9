"""Parsing of integers in requests: ASCII digits only, within the range of a database column.

`str.isdigit` accepts `²`; `int` accepts digits of other scripts, `1_000` and blanks, and raises for more than 4300
digits.
"""

import re

_INTEGER = re.compile(r"-?[0-9]{1,18}")
_DIGITS = re.compile(r"-?[0-9]+")
_LARGEST = 10**18


def parse_integer(text: str) -> int:
    """Parse an integer. Raises ValueError for other text and for more than 18 digits."""
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not an integer")
    return int(text)


def parse_capped_integer(text: str) -> int:
    """Parse an integer; with more than 18 digits it is ±10^18. Raises ValueError for other text."""
    if not _DIGITS.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not an integer")
    digits = text.lstrip("-0")
    size = int(digits or "0") if len(digits) <= 18 else _LARGEST
    return -size if text[0] == "-" else size

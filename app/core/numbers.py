"""Whole numbers in texts from requests: ASCII digits only, within what a database column can be compared with.

`str.isdigit` accepts `²`, and `int` accepts other scripts' digits, `1_000` and blanks; it
raises for more than 4300 digits.
"""

import re

_INTEGER = re.compile(r"-?[0-9]{1,18}")
_DIGITS = re.compile(r"-?[0-9]+")
_LARGEST = 10**18


def parse_integer(text: str) -> int:
    """The number. Raises ValueError for any other text and for more than 18 digits."""
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not an integer")
    return int(text)


def parse_capped_integer(text: str) -> int:
    """The number, or ±10^18 when it has more digits than that. Raises ValueError for other texts."""
    if not _DIGITS.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not an integer")
    digits = text.lstrip("-0")
    size = int(digits or "0") if len(digits) <= 18 else _LARGEST
    return -size if text[0] == "-" else size

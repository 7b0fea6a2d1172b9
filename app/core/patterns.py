"""Regular expressions of users, matched by RE2 in time linear in the text, which rules out ReDoS."""

import re
from functools import lru_cache
from typing import Any

import re2

MAX_LENGTH = 255
"""Maximum number of characters of a pattern."""
MAX_PROGRAM_SIZE = 2000
"""Maximum number of instructions of a compiled pattern, and so of steps for each byte of the text."""
MEMORY_BYTES = 1 << 20
"""Memory limit of one compiled pattern with its cached states."""
CACHE_SIZE = 64

_NOT_PORTABLE = re.compile(r"\\[0-9CEQpPzx]|\(\?(?!:)")
"""Syntax that PostgreSQL interprets differently or rejects: octal escapes are back-references there."""


class InvalidPattern(ValueError):
    """The text is not a supported regular expression."""


@lru_cache(maxsize=CACHE_SIZE)
def compile_pattern(text: str) -> Any:
    """Compile a pattern; the result has `search` and `fullmatch`. Raises InvalidPattern."""
    options = re2.Options()
    options.max_mem = MEMORY_BYTES
    options.log_errors = False
    options.never_capture = True
    try:
        compiled = re2.compile(text, options)
    except (re2.error, UnicodeError):
        raise InvalidPattern("is not a 'regex'") from None
    finally:
        re2.purge()  # drop re2's cache of 128 patterns; lru_cache is the only one
    if compiled.programsize > MAX_PROGRAM_SIZE:
        raise InvalidPattern("is too large")
    return compiled


def check_filter(text: str) -> None:
    """Raise InvalidPattern unless both databases can use the pattern in a query, at a bounded cost for each row."""
    if len(text) > MAX_LENGTH:
        raise InvalidPattern(f"is longer than {MAX_LENGTH} characters")
    if _NOT_PORTABLE.search(text):
        raise InvalidPattern("has a back-reference, look-around, flag or numeric escape, which are not supported")
    compile_pattern(text)


def matches(pattern: str, text: str | None) -> bool | None:
    """SQLite's REGEXP operator: whether the text contains a match of the pattern; None for NULL."""
    if text is None:
        return None
    return compile_pattern(pattern).search(str(text)) is not None


def escape(text: str) -> str:
    """Return a pattern that matches exactly this text."""
    return str(re2.escape(text))

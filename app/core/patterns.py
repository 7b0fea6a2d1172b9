"""Regular expressions of users, matched by RE2 in time linear in the text, which rules out ReDoS."""

import re
from functools import lru_cache
from typing import Any

import re2

MAX_LENGTH = 255
"""Characters of a pattern."""
MAX_PROGRAM_SIZE = 2000
"""Instructions of a compiled pattern: matching costs at most this number for each byte of the text."""
MEMORY_BYTES = 1 << 20
"""Memory of one compiled pattern, with its cached states."""
CACHE_SIZE = 64

_NOT_PORTABLE = re.compile(r"\\[0-9CEQpPzx]|\(\?(?!:)")
"""What PostgreSQL's engine reads in another way, or not at all: octal escapes are back-references there."""


class InvalidPattern(ValueError):
    """The text is no regular expression, or one that is not supported."""


@lru_cache(maxsize=CACHE_SIZE)
def compile_pattern(text: str) -> Any:
    """The compiled pattern, with `search` and `fullmatch`. Raises InvalidPattern."""
    options = re2.Options()
    options.max_mem = MEMORY_BYTES
    options.log_errors = False
    options.never_capture = True
    try:
        compiled = re2.compile(text, options)
    except (re2.error, UnicodeError):
        raise InvalidPattern("is not a 'regex'") from None
    finally:
        re2.purge()  # its own cache holds 128 patterns; the one here is enough
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
    """SQLite's REGEXP operator: whether the pattern is found in the text; None for NULL."""
    if text is None:
        return None
    return compile_pattern(pattern).search(str(text)) is not None


def escape(text: str) -> str:
    """The pattern that matches the text itself."""
    return str(re2.escape(text))

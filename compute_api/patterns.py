"""Which regular expressions a filter may be: those that take no time to speak of, whatever they are held against.

Python's engine, which SQLite is given, goes back and tries again where a repetition ends in several ways. One inside
another, or many in a row, would hold a worker for as long as its author likes; so would a reference to a group.
"""

import math
import re
import warnings
from collections.abc import Iterable
from re import _constants as words  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

from app import errors

LONGEST = 255
MOST_REPETITIONS = 3
"""Each makes the work grow by the length of what is searched: names have 255 characters at most."""
FEW = 2
CHOICE = 0.25
"""What it costs to do something up to so many times, or one of two things."""

_PLAIN = frozenset({words.LITERAL, words.NOT_LITERAL, words.ANY, words.IN, words.AT})
_REPEATS = frozenset({words.MAX_REPEAT, words.MIN_REPEAT})


def checked(name: str, text: str) -> str:
    """The pattern, if it is one that may be used. Raises BadRequest."""
    if len(text) > LONGEST:
        raise errors.BadRequest(f"Invalid input for query parameters {name}. Value: {text[:40]}…. It is too long")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(text)
            tree = parser.parse(text)
    except (re.error, RecursionError, OverflowError):
        raise errors.BadRequest(
            f"Invalid input for query parameters {name}. Value: {text}. '{text}' is not a 'regex'"
        ) from None
    if "(?" in text.replace("(?:", "") or _work(tree, 1) > MOST_REPETITIONS:
        raise errors.BadRequest(
            f"Invalid input for query parameters {name}. Value: {text}. It would take too long: use at most "
            f"{MOST_REPETITIONS} repetitions, none within another, and neither look-arounds nor references"
        )
    return text


def _work(items: Iterable[tuple[Any, Any]], times: int) -> float:
    """How many repetitions there are one after the other, where all of it is done up to `times` times; a choice is a
    fraction of one. Infinite for what may not be."""
    total = 0.0
    for kind, value in items:
        if kind in _PLAIN:
            continue
        if kind is words.SUBPATTERN:
            total += _work(value[-1], times)
        elif kind is words.BRANCH:
            total += sum(_work(branch, times) for branch in value[1]) + CHOICE * (len(value[1]) - 1)
        elif kind in _REPEATS:
            least, most, body = value
            total += _work(body, max(times, most)) + (1 if most > FEW else CHOICE) * (least != most)
        else:
            return math.inf
    return math.inf if total and times > 1 else total

"""Regular expressions in list filters: supported syntax and bounds of the matching time."""

import pytest

from app.core import errors, patterns
from compute_api.servers.safe_regex import check_pattern


@pytest.mark.parametrize(
    "text",
    [
        "web",
        "^web-[0-9]+$",
        "^(web|db)-\\d{2}$",
        "a.*b.*c",
        "(?:ab)+",
        "fd00:.*::1",
        "w?e?b?",
        "(ab){2,4}",
        "[a-z]{1,8}",
        "(a+)+$",
        "größe",
        "",
    ],
)
def test_usual_patterns_are_accepted(text: str) -> None:
    assert check_pattern("name", text) == text


@pytest.mark.parametrize(
    "text",
    [
        "(a)\\1",
        "(a)" * 12 + "\\12",
        "(?=a)a",
        "(?P<x>a)",
        "(?i)a",
        "\\Q(?=a)\\E",
        "(",
        "a" * 256,
        "*",
        "(.{99}){10}",
        "((a{1,99}){1,99}){1,99}",
        "(" * 200 + "a" + ")*" * 200,
        "\ud800",
    ],
)
def test_invalid_and_unsupported_patterns_are_refused(text: str) -> None:
    with pytest.raises(errors.BadRequest, match="Invalid input for query parameters name"):
        check_pattern("name", text)


ADVERSARIAL = ["a*a*a*b", "(a+)+$", ".*?.*?.*?b", "a*a*a*(?:b|c)", "(a|aa)+$", "(a|a)*b", "a?" * 40 + "a" * 40]


@pytest.mark.parametrize("text", ADVERSARIAL)
def test_work_is_linear_in_the_text(text: str) -> None:
    """RE2 executes each instruction at most once for each byte; so the number of instructions bounds the work."""
    compiled = patterns.compile_pattern(check_pattern("name", text))
    assert compiled.programsize * patterns.MAX_LENGTH <= patterns.MAX_PROGRAM_SIZE * patterns.MAX_LENGTH
    assert compiled.programsize <= 4 * len(text) + 8


@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", ADVERSARIAL)
def test_a_backtracking_engine_would_not_finish(text: str) -> None:
    """A million bytes without a match: a linear engine needs milliseconds, n² would need hours."""
    assert patterns.matches(f"(?:{text})z", "a" * 1_000_000) is False


def test_null_matches_nothing() -> None:
    assert patterns.matches("a", None) is None
    assert patterns.matches("^1", 10) is True  # type: ignore[arg-type]

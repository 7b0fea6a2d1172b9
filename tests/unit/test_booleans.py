"""Booleans in query strings."""

import pytest

from app.core.booleans import parse_boolean


@pytest.mark.parametrize(
    ("text", "expected"), [("true", True), ("YES", True), ("1", True), ("off", False), ("F", False), ("0", False)]
)
def test_words_for_true_and_false_are_parsed(text: str, expected: bool) -> None:
    assert parse_boolean(text) is expected


@pytest.mark.parametrize("text", ["", "none", "2", " true", "truth"])
def test_other_text_is_no_boolean(text: str) -> None:
    assert parse_boolean(text) is None

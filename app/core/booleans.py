"""Booleans in texts from requests: the words that oslo.utils' `bool_from_string` accepts."""

TRUE = frozenset({"1", "t", "true", "on", "y", "yes"})
FALSE = frozenset({"0", "f", "false", "off", "n", "no"})


def parse_boolean(text: str) -> bool | None:
    """Return the boolean, ignoring case; None for any other text."""
    lowered = text.lower()
    return True if lowered in TRUE else False if lowered in FALSE else None

"""Regular expressions in filters of lists, as Nova has them for names, addresses and some more columns."""

from app.core import errors, patterns


def check_pattern(name: str, text: str) -> str:
    """The pattern of the query parameter `name`. Raises BadRequest for one that is not valid or not supported."""
    try:
        patterns.check_filter(text)
    except patterns.InvalidPattern as error:
        shown = text if len(text) <= patterns.MAX_LENGTH else f"{text[:40]}…"
        raise errors.BadRequest(
            f"Invalid input for query parameters {name}. Value: {shown}. '{shown}' {error}"
        ) from None
    return text

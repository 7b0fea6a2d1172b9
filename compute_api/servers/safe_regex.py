"""Regular expressions in server list filters: rejects patterns that are invalid or unsupported by RE2 (ReDoS)."""

from app.core import errors, patterns


def check_pattern(name: str, text: str) -> str:
    """Return the pattern of the query parameter `name`. Raises BadRequest when it is invalid or not supported."""
    try:
        patterns.check_filter(text)
    except patterns.InvalidPattern as error:
        shown = text if len(text) <= patterns.MAX_LENGTH else f"{text[:40]}…"
        raise errors.BadRequest(
            f"Invalid input for query parameters {name}. Value: {shown}. '{shown}' {error}"
        ) from None
    return text

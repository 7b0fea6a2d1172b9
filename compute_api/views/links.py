"""Links in compute responses: self with the API version in its path, bookmark without."""

from app.web.links import base_url


def of(kind: str, item_id: str) -> list[dict[str, str]]:
    """Return the self and bookmark links of a resource."""
    return under(base_url(), kind, item_id)


def under(base: str, kind: str, item_id: str) -> list[dict[str, str]]:
    """Return the self and bookmark links of a resource below the base URL."""
    return [
        {"rel": "self", "href": f"{base}/compute/v2.1/{kind}/{item_id}"},
        {"rel": "bookmark", "href": f"{base}/compute/{kind}/{item_id}"},
    ]


def bookmark(kind: str, item_id: str) -> list[dict[str, str]]:
    """Return the bookmark link of a resource."""
    return [{"rel": "bookmark", "href": f"{base_url()}/compute/{kind}/{item_id}"}]

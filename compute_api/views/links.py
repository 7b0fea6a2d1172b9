"""The links in compute's answers: self with the version, bookmark without."""

from app.web.links import url


def of(kind: str, item_id: str) -> list[dict[str, str]]:
    """self and bookmark of a server, flavor …"""
    return [
        {"rel": "self", "href": url(f"/compute/v2.1/{kind}/{item_id}")},
        {"rel": "bookmark", "href": url(f"/compute/{kind}/{item_id}")},
    ]


def bookmark(kind: str, item_id: str) -> list[dict[str, str]]:
    """Only the bookmark."""
    return [{"rel": "bookmark", "href": url(f"/compute/{kind}/{item_id}")}]

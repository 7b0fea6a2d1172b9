"""The links in compute's answers: self with the version, bookmark without."""

from app.web.links import base_url


def of(kind: str, item_id: str) -> list[dict[str, str]]:
    """self and bookmark of a server, flavor …"""
    return under(base_url(), kind, item_id)


def under(base: str, kind: str, item_id: str) -> list[dict[str, str]]:
    """The same, where the beginning of all URLs is known already."""
    return [
        {"rel": "self", "href": f"{base}/compute/v2.1/{kind}/{item_id}"},
        {"rel": "bookmark", "href": f"{base}/compute/{kind}/{item_id}"},
    ]


def bookmark(kind: str, item_id: str) -> list[dict[str, str]]:
    """Only the bookmark."""
    return [{"rel": "bookmark", "href": f"{base_url()}/compute/{kind}/{item_id}"}]

"""Views of the image proxy (until microversion 2.35)."""

from typing import Any

from app.web.links import url
from compute_api import image_proxy
from compute_api.views import links
from compute_api.views.servers import format_seconds
from image_api.models import Image


def brief(image: Image) -> dict[str, Any]:
    """Render an entry of GET /images."""
    alternate = {
        "rel": "alternate",
        "type": "application/vnd.openstack.image",
        "href": url(f"/image/v2/images/{image.id}"),
    }
    return {"id": image.id, "name": image.name, "links": [*links.of("images", image.id), alternate]}


def show(image: Image) -> dict[str, Any]:
    """Render an image with all fields."""
    status = image_proxy.status(image)
    body: dict[str, Any] = {
        **brief(image),
        "status": status,
        "progress": 100 if status == "ACTIVE" else 25 if status == "SAVING" else 0,
        "minDisk": image.min_disk,
        "minRam": image.min_ram,
        "metadata": image.properties,
        "created": format_seconds(image.created_at),
        "updated": format_seconds(image.updated_at),
        "OS-EXT-IMG-SIZE:size": image.size,
    }
    if (server_id := image.properties.get("instance_uuid")) is not None:
        body["server"] = {"id": server_id, "links": links.of("servers", server_id)}
    return body

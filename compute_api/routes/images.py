"""Images by way of compute, as they were until 2.35; later clients ask the image service."""

from datetime import datetime
from typing import Any

from flask import Response, current_app, request
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import errors
from app.web.bodies import json_body, parse
from app.web.context import caller, clock, database
from app.web.links import url
from app.web.microversion import v
from app.web.pagination import page, query_after
from app.web.policy import require
from app.web.responses import empty, json
from compute_api.routes.base import list_params
from compute_api.routes.base.blueprint import compute
from compute_api.routes.base.context import transaction, version
from compute_api.schemas.servers import MetaBody, MetadataBody
from compute_api.views import links
from compute_api.views.servers import format_seconds
from image_api import images
from image_api.models import Image

UNTIL, METADATA_UNTIL = v("2.35"), v("2.38")
STATUS = {
    "queued": "SAVING",
    "saving": "SAVING",
    "uploading": "SAVING",
    "importing": "SAVING",
    "active": "ACTIVE",
    "deactivated": "UNKNOWN",
    "killed": "ERROR",
}


@compute.get("/images")
@require("os_compute_api:images")
def list_images() -> Response:
    found = _listed("/images")
    return json({**found[1], "images": [_brief(image) for image in found[0]]})


@compute.get("/images/detail")
@require("os_compute_api:images")
def list_images_detail() -> Response:
    found = _listed("/images/detail")
    return json({**found[1], "images": [_shown(image) for image in found[0]]})


def _listed(path: str) -> tuple[list[Image], dict[str, Any]]:
    _until(UNTIL)
    asked = page(request.args)
    query = select(Image).where(images.visible_to(caller())).order_by(Image.created_at.desc(), Image.id)
    if name := request.args.get("name"):
        query = query.where(Image.name == name)
    with database().reading() as session:
        if asked.marker:
            last = session.get(Image, asked.marker)
            if last is None:
                raise errors.BadRequest(f"marker [{asked.marker}] not found")
            at: datetime = last.created_at
            query = query.where((Image.created_at < at) | ((Image.created_at == at) & (Image.id > last.id)))
        found = [one for one in session.scalars(query) if _is_wanted(one)][: asked.limit]
    more: dict[str, Any] = {}
    if found and "limit" in request.args and len(found) == asked.limit:
        more["images_links"] = [{"rel": "next", "href": url(f"/compute/v2.1{path}?{query_after(found[-1].id)}")}]
    return found, more


def _is_wanted(image: Image) -> bool:
    """By status, by kind, by the server that it was made of (its id, or a link to it), by what it needs, by its age."""
    wanted = request.args
    made_of = wanted.get("server", "").rstrip("/").rsplit("/", 1)[-1]
    return (
        wanted.get("status", "").upper() in ("", _status(image))
        and made_of in ("", image.properties.get("instance_uuid"))
        and wanted.get("type", "") in ("", image.properties.get("image_type"))
        and wanted.get("minDisk", "") in ("", str(image.min_disk))
        and wanted.get("minRam", "") in ("", str(image.min_ram))
        and ((since := list_params.parse_time("changes-since")) is None or image.updated_at >= since)
    )


@compute.get("/images/<image_id>")
@require("os_compute_api:images")
def show_image(image_id: str) -> Response:
    _until(UNTIL)
    return json({"image": _shown(_find(image_id))})


@compute.delete("/images/<image_id>")
@require("os_compute_api:images:delete")
def delete_image(image_id: str) -> Response:
    _until(UNTIL)
    with transaction() as session:
        image, store = _own(session, image_id), current_app.extensions["sixstack.images.store"]
        images.remove(session, store, image, clock().now())
    return empty()


@compute.get("/images/<image_id>/metadata")
@require("os_compute_api:images")
def list_image_metadata(image_id: str) -> Response:
    _until(METADATA_UNTIL)
    return json({"metadata": _find(image_id).properties})


@compute.get("/images/<image_id>/metadata/<key>")
@require("os_compute_api:images")
def show_image_metadata(image_id: str, key: str) -> Response:
    _until(METADATA_UNTIL)
    properties = _find(image_id).properties
    if key not in properties:
        raise errors.NotFound("Metadata item was not found")
    return json({"meta": {key: properties[key]}})


@compute.post("/images/<image_id>/metadata")
@require("os_compute_api:images:delete")
def add_image_metadata(image_id: str) -> Response:
    return json({"metadata": _change(image_id, parse(MetadataBody, json_body()).metadata, replace=False)})


@compute.put("/images/<image_id>/metadata")
@require("os_compute_api:images:delete")
def replace_image_metadata(image_id: str) -> Response:
    return json({"metadata": _change(image_id, parse(MetadataBody, json_body()).metadata, replace=True)})


@compute.put("/images/<image_id>/metadata/<key>")
@require("os_compute_api:images:delete")
def set_image_metadata(image_id: str, key: str) -> Response:
    meta = parse(MetaBody, json_body()).meta
    if list(meta) != [key]:
        raise errors.BadRequest("Request body and URI mismatch")
    _change(image_id, meta, replace=False)
    return json({"meta": meta})


@compute.delete("/images/<image_id>/metadata/<key>")
@require("os_compute_api:images:delete")
def delete_image_metadata(image_id: str, key: str) -> Response:
    properties = _find(image_id).properties
    if key not in properties:
        raise errors.NotFound("Invalid metadata key")
    _change(image_id, {name: value for name, value in properties.items() if name != key}, replace=True)
    return empty()


def _change(image_id: str, wanted: dict[str, str], *, replace: bool) -> dict[str, str]:
    _until(METADATA_UNTIL)
    with transaction() as session:
        image = _own(session, image_id)
        image.properties = dict(wanted) if replace else {**image.properties, **wanted}
        image.updated_at = clock().now()
        return image.properties


def _own(session: Session, image_id: str) -> Image:
    """An image that the caller may change. Raises NotFound, Forbidden."""
    try:
        image = images.find_visible(session, caller(), image_id)
    except errors.NotFound:
        raise errors.NotFound("Image not found.") from None
    if not caller().is_admin and image.owner != caller().project:
        raise errors.Forbidden("You are not allowed to change the image.")
    return image


def _until(last: Any) -> None:
    if version() > last:
        raise errors.NotFound("The resource could not be found.")


def _find(image_id: str) -> Image:
    with database().reading() as session:
        try:
            return images.find_visible(session, caller(), image_id)
        except errors.NotFound:
            raise errors.NotFound("Image not found.") from None


def _status(image: Image) -> str:
    return STATUS.get(image.status, "UNKNOWN")


def _brief(image: Image) -> dict[str, Any]:
    alternate = {
        "rel": "alternate",
        "type": "application/vnd.openstack.image",
        "href": url(f"/image/v2/images/{image.id}"),
    }
    return {"id": image.id, "name": image.name, "links": [*links.of("images", image.id), alternate]}


def _shown(image: Image) -> dict[str, Any]:
    status = _status(image)
    body: dict[str, Any] = {
        **_brief(image),
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

"""Routes of the image proxy (until microversion 2.35); later clients use the image service."""

from collections.abc import Callable
from typing import Any

from flask import Response, current_app, request

from app.core import errors
from app.web.bodies import json_body, parse
from app.web.context import caller, clock, database
from app.web.links import url
from app.web.microversion import v
from app.web.pagination import page, query_after
from app.web.policy import require
from app.web.responses import empty, json
from compute_api import image_proxy
from compute_api.image_proxy import ImageFilter
from compute_api.routes.base import list_params
from compute_api.routes.base.blueprint import compute
from compute_api.routes.base.context import check_available, transaction
from compute_api.schemas.servers import MetaBody, MetadataBody
from compute_api.views import images as views
from image_api import images

UNTIL, METADATA_UNTIL = v("2.35"), v("2.38")


@compute.get("/images")
@require("os_compute_api:images")
def list_images() -> Response:
    return _list("/images", views.brief)


@compute.get("/images/detail")
@require("os_compute_api:images")
def list_images_detail() -> Response:
    return _list("/images/detail", views.show)


def _list(path: str, view: Callable[[Any], dict[str, Any]]) -> Response:
    """List images. The filter `server` is a server's id or a link to it."""
    check_available(until=UNTIL)
    arguments, paging = request.args, page(request.args)
    filters = ImageFilter(
        name=arguments.get("name", ""),
        status=arguments.get("status", ""),
        server_id=arguments.get("server", "").rstrip("/").rsplit("/", 1)[-1],
        type=arguments.get("type", ""),
        min_disk=arguments.get("minDisk", ""),
        min_ram=arguments.get("minRam", ""),
        changed_since=list_params.parse_time("changes-since"),
        limit=paging.limit,
        marker=paging.marker,
    )
    with database().reading() as session:
        found = image_proxy.list_images(session, caller(), filters)
    body: dict[str, Any] = {"images": [view(image) for image in found]}
    if found and "limit" in arguments and len(found) == paging.limit:
        body["images_links"] = [{"rel": "next", "href": url(f"/compute/v2.1{path}?{query_after(found[-1].id)}")}]
    return json(body)


@compute.get("/images/<image_id>")
@require("os_compute_api:images")
def show_image(image_id: str) -> Response:
    check_available(until=UNTIL)
    with database().reading() as session:
        return json({"image": views.show(image_proxy.find(session, caller(), image_id))})


@compute.delete("/images/<image_id>")
@require("os_compute_api:images:delete")
def delete_image(image_id: str) -> Response:
    check_available(until=UNTIL)
    with transaction() as session:
        image = image_proxy.find_own(session, caller(), image_id)
        images.remove(session, current_app.extensions["sixstack.images.store"], image, clock().now())
    return empty()


@compute.get("/images/<image_id>/metadata")
@require("os_compute_api:images")
def list_image_metadata(image_id: str) -> Response:
    return json({"metadata": _read_metadata(image_id)})


@compute.get("/images/<image_id>/metadata/<key>")
@require("os_compute_api:images")
def show_image_metadata(image_id: str, key: str) -> Response:
    metadata = _read_metadata(image_id)
    if key not in metadata:
        raise errors.NotFound("Metadata item was not found")
    return json({"meta": {key: metadata[key]}})


@compute.post("/images/<image_id>/metadata")
@require("os_compute_api:images:delete")
def add_image_metadata(image_id: str) -> Response:
    return json({"metadata": _update_metadata(image_id, parse(MetadataBody, json_body()).metadata, replace=False)})


@compute.put("/images/<image_id>/metadata")
@require("os_compute_api:images:delete")
def replace_image_metadata(image_id: str) -> Response:
    return json({"metadata": _update_metadata(image_id, parse(MetadataBody, json_body()).metadata, replace=True)})


@compute.put("/images/<image_id>/metadata/<key>")
@require("os_compute_api:images:delete")
def set_image_metadata(image_id: str, key: str) -> Response:
    meta = parse(MetaBody, json_body()).meta
    if list(meta) != [key]:
        raise errors.BadRequest("Request body and URI mismatch")
    _update_metadata(image_id, meta, replace=False)
    return json({"meta": meta})


@compute.delete("/images/<image_id>/metadata/<key>")
@require("os_compute_api:images:delete")
def delete_image_metadata(image_id: str, key: str) -> Response:
    metadata = _read_metadata(image_id)
    if key not in metadata:
        raise errors.NotFound("Invalid metadata key")
    _update_metadata(image_id, {name: value for name, value in metadata.items() if name != key}, replace=True)
    return empty()


def _read_metadata(image_id: str) -> dict[str, str]:
    check_available(until=METADATA_UNTIL)
    with database().reading() as session:
        return image_proxy.find(session, caller(), image_id).properties


def _update_metadata(image_id: str, items: dict[str, str], *, replace: bool) -> dict[str, str]:
    check_available(until=METADATA_UNTIL)
    with transaction() as session:
        image = image_proxy.find_own(session, caller(), image_id)
        return image_proxy.update_metadata(clock().now(), image, items, replace=replace)

"""Request bodies of the image API: create bodies → `NewImage`, JSON patches → changed values."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, StrictBool, StrictInt, StringConstraints

from app.core import errors
from app.web.bodies import OpenBody, parse
from image_api.images import NewImage
from image_api.models import Image
from image_api.states import CONTAINER_FORMATS, DISK_FORMATS, ImageStatus, Visibility

MAXIMUM_PROPERTIES = 128
MAXIMUM_TAGS = 128

Text255 = Annotated[str, StringConstraints(max_length=255, strict=True)]
Count = Annotated[StrictInt, Field(ge=0, le=2147483647)]
DiskFormat = Annotated[str, StringConstraints(pattern=f"^({'|'.join(DISK_FORMATS)})$")]
ContainerFormat = Annotated[str, StringConstraints(pattern=f"^({'|'.join(CONTAINER_FORMATS)})$")]

CHANGEABLE = (
    "name",
    "owner",
    "visibility",
    "protected",
    "os_hidden",
    "disk_format",
    "container_format",
    "min_disk",
    "min_ram",
    "tags",
)
READ_ONLY = frozenset(
    {"created_at", "updated_at", "status", "checksum", "os_hash_algo", "os_hash_value", "size", "virtual_size"}
    | {"direct_url", "self", "file", "schema", "stores", "sixstack_format", "sixstack_compression"}
)
RESERVED = frozenset(
    {"location", "deleted", "deleted_at", "is_public", "import_from", "copy_from", "size_min", "size_max"}
)


class ImageFields(OpenBody):
    """Image fields that clients may set; all other keys are properties."""

    id: Annotated[str | None, StringConstraints(strict=True)] = None
    name: Text255 | None = None
    owner: Text255 | None = None
    visibility: Visibility = Visibility.SHARED
    protected: StrictBool = False
    os_hidden: StrictBool = False
    disk_format: DiskFormat | None = None
    container_format: ContainerFormat | None = None
    min_disk: Count = 0
    min_ram: Count = 0
    tags: list[Text255] = []


def parse_new_image(body: Any) -> NewImage:
    """Parse the body of POST /images. Raises BadRequest, Forbidden for read-only and reserved fields, TooLarge."""
    if not isinstance(body, Mapping):
        raise errors.BadRequest("The body must be a JSON object.")
    for name in body:
        _check_settable(name)
    fields = parse(ImageFields, body)
    properties = ImageFields.extras(body)
    for name in ("kernel_id", "ramdisk_id"):
        if name in properties and properties[name] is None:
            del properties[name]
    _check_properties(properties)
    _check_tags(fields.tags)
    return NewImage(
        id=fields.id,
        name=fields.name,
        owner=fields.owner,
        visibility=fields.visibility,
        protected=fields.protected,
        os_hidden=fields.os_hidden,
        disk_format=fields.disk_format,
        container_format=fields.container_format,
        min_disk=fields.min_disk,
        min_ram=fields.min_ram,
        properties=properties,
        tags=fields.tags,
    )


def parse_patch(image: Image, operations: Any, *, draft4: bool) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the fields that a JSON patch changes and the resulting properties; does not modify the image.

    Paths have one segment. `draft4` selects the older syntax, `{"replace": "/name"}`. Raises BadRequest, Forbidden,
    Conflict when a property to remove or replace does not exist, TooLarge.
    """
    if not isinstance(operations, list):
        raise errors.BadRequest("The body must be a JSON array of operations.")
    changes: dict[str, Any] = {}
    properties = dict(image.properties)
    for operation in operations:
        kind, name, value = _parse_operation(operation, draft4=draft4)
        _check_settable(name)
        if name in CHANGEABLE:
            changes[name] = _parse_field(image, kind, name, value)
        elif name == "id":
            raise errors.Forbidden("Attribute 'id' is read-only.")
        elif kind == "remove":
            if properties.pop(name, None) is None:
                raise errors.Conflict(f"Property {name} does not exist.")
        elif kind == "replace" and name not in properties:
            raise errors.Conflict(f"Property {name} does not exist.")
        elif kind == "add" and draft4 and name in properties:
            raise errors.Conflict(f"Property {name} already present.")
        else:
            properties[name] = value
    _check_properties(properties)
    return changes, properties


def _parse_operation(operation: Any, *, draft4: bool) -> tuple[str, str, Any]:
    if not isinstance(operation, Mapping):
        raise errors.BadRequest("Operations must be JSON objects.")
    if draft4:
        kinds = [kind for kind in ("add", "replace", "remove") if kind in operation]
        if len(kinds) != 1:
            raise errors.BadRequest("Operations must contain exactly one of add, replace and remove.")
        kind, path = kinds[0], operation[kinds[0]]
    else:
        kind, path = str(operation.get("op")), operation.get("path")
        if kind not in ("add", "replace", "remove"):
            raise errors.BadRequest(f"Operations must be one of add, replace and remove, not {kind!r}.")
    if not isinstance(path, str) or not path.startswith("/"):
        raise errors.BadRequest(f"Invalid JSON pointer: {path!r}. It must begin with '/'.")
    if kind != "remove" and "value" not in operation:
        raise errors.BadRequest(f"Operation {kind!r} requires a member named 'value'.")
    segments = path[1:].split("/")
    name = segments[0].replace("~1", "/").replace("~0", "~")
    if not name or path != path.strip() or "~" in segments[0].replace("~0", "").replace("~1", ""):
        raise errors.BadRequest(f"Invalid JSON pointer: {path!r}.")
    if len(segments) > 1 and name != "locations":
        raise errors.BadRequest(f"Invalid JSON pointer for this resource: {path!r}.")
    return kind, name, operation.get("value")


def _parse_field(image: Image, kind: str, name: str, value: Any) -> Any:
    if kind == "remove":
        raise errors.Forbidden(f"Property {name} may not be removed.")
    changed = getattr(parse(ImageFields, {name: value}), name)
    if name in ("disk_format", "container_format") and image.status != ImageStatus.QUEUED:
        raise errors.Forbidden(f"Attribute {name} can be replaced only for a queued image.")
    if name == "tags":
        _check_tags(changed)
        return sorted(set(changed))
    if name == "owner" and not changed:
        raise errors.BadRequest("An image must have an owner.")
    return changed


def _check_settable(name: str) -> None:
    if name in READ_ONLY:
        raise errors.Forbidden(f"Attribute '{name}' is read-only.")
    if name in RESERVED or name.startswith("os_glance_"):
        raise errors.Forbidden(f"Attribute '{name}' is reserved.")
    if name == "locations":
        raise errors.Forbidden("It's not allowed to add, replace or remove locations: images are uploaded or imported.")


def _check_properties(properties: Mapping[str, Any]) -> None:
    if len(properties) > MAXIMUM_PROPERTIES:
        raise errors.TooLarge(
            f"The limit has been exceeded on the number of allowed image properties. "
            f"Attempted: {len(properties)}, Maximum: {MAXIMUM_PROPERTIES}"
        )
    for name, value in properties.items():
        if not 0 < len(name) <= 255:
            raise errors.BadRequest("Property names must have 1 to 255 characters.")
        if not isinstance(value, str):
            raise errors.BadRequest(
                f"Provided object does not match schema 'image': {value!r} is not a string (property {name!r})."
            )
        if len(value) > 65535:
            raise errors.BadRequest(f"The value of property {name!r} is longer than 65535 characters.")


def _check_tags(tags: list[str]) -> None:
    if len(set(tags)) > MAXIMUM_TAGS:
        raise errors.TooLarge(
            f"The limit has been exceeded on the number of allowed image tags. "
            f"Attempted: {len(set(tags))}, Maximum: {MAXIMUM_TAGS}"
        )

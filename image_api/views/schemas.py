"""JSON schemas of images and members: glanceclient builds its objects from them and sends nothing that breaks them."""

from typing import Any

from image_api.states import CONTAINER_FORMATS, DISK_FORMATS, ImageStatus, MemberStatus, Visibility

Schema = dict[str, Any]

UUID_PATTERN = "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$"


def _field(kind: Any, description: str, **more: Any) -> Schema:
    return {"type": kind, "description": description, **more}


def _shown(kind: Any, description: str, **more: Any) -> Schema:
    return _field(kind, description, readOnly=True, **more)


def _property(kind: Any, description: str, **more: Any) -> Schema:
    return _field(kind, description, is_base=False, **more)


IMAGE: Schema = {
    "name": "image",
    "properties": {
        "id": _field("string", "The image's UUID", pattern=UUID_PATTERN),
        "name": _field(["null", "string"], "What people call it", maxLength=255),
        "status": _shown(
            "string",
            "How far it is",
            enum=[*(str(status) for status in ImageStatus), "killed", "deleted", "pending_delete"],
        ),
        "visibility": _field("string", "Who may see it", enum=[str(item) for item in Visibility]),
        "protected": _field("boolean", "Whether deletion is refused"),
        "os_hidden": _field("boolean", "Whether lists leave it out unless asked"),
        "checksum": _shown(["null", "string"], "md5 of the bytes", maxLength=32),
        "os_hash_algo": _shown(["null", "string"], "Which hash os_hash_value is", maxLength=64),
        "os_hash_value": _shown(["null", "string"], "Hash of the bytes, in hex", maxLength=128),
        "owner": _field(["null", "string"], "The project it belongs to", maxLength=255),
        "size": _shown(["null", "integer"], "Bytes as uploaded"),
        "virtual_size": _shown(["null", "integer"], "Bytes of the disk within"),
        "container_format": _field(["null", "string"], "Format of the container", enum=[None, *CONTAINER_FORMATS]),
        "disk_format": _field(["null", "string"], "Format of the disk", enum=[None, *DISK_FORMATS]),
        "created_at": _shown("string", "When it was registered"),
        "updated_at": _shown("string", "When it last changed"),
        "tags": _field("array", "Words to find it by", items={"type": "string", "maxLength": 255}),
        "min_ram": _field("integer", "Memory a server needs to boot it, in MiB"),
        "min_disk": _field("integer", "Disk a server needs to boot it, in GiB"),
        "self": _shown("string", "Path of the image"),
        "file": _shown("string", "Path of its bytes"),
        "schema": _shown("string", "Path of this schema"),
        "kernel_id": _property(["null", "string"], "Image of the kernel to boot it with", pattern=UUID_PATTERN),
        "ramdisk_id": _property(["null", "string"], "Image of the ram disk to boot it with", pattern=UUID_PATTERN),
        "instance_uuid": _property("string", "The server it was made from"),
        "architecture": _property("string", "Processor architecture"),
        "os_distro": _property("string", "Operating system"),
        "os_version": _property("string", "Version of the operating system"),
        "description": _property("string", "What it is, for people"),
    },
    "additionalProperties": {"type": "string"},
    "links": [
        {"rel": "self", "href": "{self}"},
        {"rel": "enclosure", "href": "{file}"},
        {"rel": "describedby", "href": "{schema}"},
    ],
}

MEMBER: Schema = {
    "name": "member",
    "properties": {
        "created_at": _field("string", "When it was shared"),
        "image_id": _field("string", "The image's UUID", pattern=UUID_PATTERN),
        "member_id": _field("string", "The project that may use it"),
        "status": _field("string", "What the project says to it", enum=[str(status) for status in MemberStatus]),
        "updated_at": _field("string", "When the status last changed"),
        "schema": _shown("string", "Path of this schema"),
    },
}

TASK: Schema = {
    "name": "task",
    "properties": {
        "id": _field("string", "The task's UUID", pattern=UUID_PATTERN),
        "type": _field("string", "What it does", enum=["import", "api_image_import"]),
        "status": _field("string", "How far it is", enum=["pending", "processing", "success", "failure"]),
        "input": _field(["null", "object"], "What was asked for"),
        "result": _field(["null", "object"], "What came of it"),
        "owner": _field("string", "The project it belongs to"),
        "message": _field("string", "What went wrong, or how far it is"),
        "expires_at": _field(["null", "string"], "When it may be forgotten"),
        "created_at": _field("string", "When it was asked for"),
        "updated_at": _field("string", "When it last changed"),
        "self": _shown("string", "Path of the task"),
        "schema": _shown("string", "Path of this schema"),
    },
}


def _collection(name: str, key: str, item: Schema) -> Schema:
    return {
        "name": name,
        "properties": {
            key: {"type": "array", "items": item},
            "first": {"type": "string"},
            "next": {"type": "string"},
            "schema": {"type": "string"},
        },
        "links": [
            {"rel": "first", "href": "{first}"},
            {"rel": "next", "href": "{next}"},
            {"rel": "describedby", "href": "{schema}"},
        ],
    }


SCHEMAS: dict[str, Schema] = {
    "image": IMAGE,
    "images": _collection("images", "images", IMAGE),
    "member": MEMBER,
    "members": {
        "name": "members",
        "properties": {"members": {"type": "array", "items": MEMBER}, "schema": {"type": "string"}},
        "links": [{"rel": "describedby", "href": "{schema}"}],
    },
    "task": TASK,
    "tasks": _collection("tasks", "tasks", TASK),
}

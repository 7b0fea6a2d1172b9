"""JSON schemas of images, members and tasks; glanceclient builds and validates its objects with them."""

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
        "name": _field(["null", "string"], "Descriptive name", maxLength=255),
        "status": _shown(
            "string",
            "Status of the image",
            enum=[*(str(status) for status in ImageStatus), "killed", "deleted", "pending_delete"],
        ),
        "visibility": _field("string", "Scope of image accessibility", enum=[str(item) for item in Visibility]),
        "protected": _field("boolean", "Whether the image cannot be deleted"),
        "os_hidden": _field("boolean", "Whether the image is hidden from default lists"),
        "checksum": _shown(["null", "string"], "md5 of the image data, in hex", maxLength=32),
        "os_hash_algo": _shown(["null", "string"], "Algorithm of os_hash_value", maxLength=64),
        "os_hash_value": _shown(["null", "string"], "Hash of the image data, in hex", maxLength=128),
        "owner": _field(["null", "string"], "Project that owns the image", maxLength=255),
        "size": _shown(["null", "integer"], "Size of the image data in bytes"),
        "virtual_size": _shown(["null", "integer"], "Virtual size of the disk in bytes"),
        "container_format": _field(["null", "string"], "Format of the container", enum=[None, *CONTAINER_FORMATS]),
        "disk_format": _field(["null", "string"], "Format of the disk", enum=[None, *DISK_FORMATS]),
        "created_at": _shown("string", "Time of creation"),
        "updated_at": _shown("string", "Time of the last change"),
        "tags": _field("array", "Tags of the image", items={"type": "string", "maxLength": 255}),
        "min_ram": _field("integer", "Memory required to boot the image, in MiB"),
        "min_disk": _field("integer", "Disk space required to boot the image, in GiB"),
        "self": _shown("string", "Path of the image"),
        "file": _shown("string", "Path of the image data"),
        "schema": _shown("string", "Path of this schema"),
        "kernel_id": _property(["null", "string"], "Kernel image to boot with", pattern=UUID_PATTERN),
        "ramdisk_id": _property(["null", "string"], "Ramdisk image to boot with", pattern=UUID_PATTERN),
        "instance_uuid": _property("string", "Server that the image was created from"),
        "architecture": _property("string", "Processor architecture"),
        "os_distro": _property("string", "Operating system"),
        "os_version": _property("string", "Version of the operating system"),
        "description": _property("string", "Description of the image"),
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
        "created_at": _field("string", "Time of creation"),
        "image_id": _field("string", "The image's UUID", pattern=UUID_PATTERN),
        "member_id": _field("string", "Project that the image is shared with"),
        "status": _field("string", "Status of the membership", enum=[str(status) for status in MemberStatus]),
        "updated_at": _field("string", "Time of the last change"),
        "schema": _shown("string", "Path of this schema"),
    },
}

TASK: Schema = {
    "name": "task",
    "properties": {
        "id": _field("string", "The task's UUID", pattern=UUID_PATTERN),
        "type": _field("string", "Type of the task", enum=["import", "api_image_import"]),
        "status": _field("string", "Status of the task", enum=["pending", "processing", "success", "failure"]),
        "input": _field(["null", "object"], "Parameters of the task"),
        "result": _field(["null", "object"], "Result of the task"),
        "owner": _field("string", "Project that owns the task"),
        "message": _field("string", "Error message or progress"),
        "expires_at": _field(["null", "string"], "Time after which the task is deleted"),
        "created_at": _field("string", "Time of creation"),
        "updated_at": _field("string", "Time of the last change"),
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

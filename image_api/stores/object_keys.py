"""Names of an image's objects in the store."""


def upload_key(image_id: str) -> str:
    """Return the key of the upload, byte for byte as the user sent it."""
    return image_id


def disk_key(name: str) -> str:
    """Return the key of the decompressed disk of an uploaded or staged object; exists only if that is compressed."""
    return f"{name}.disk"


def staged_key(image_id: str) -> str:
    """Return the key of a staged upload that is not imported yet."""
    return f"{image_id}.staged"


def image_id_of(name: str) -> str:
    """Return the id of the image that an object belongs to."""
    return name.partition(".")[0]

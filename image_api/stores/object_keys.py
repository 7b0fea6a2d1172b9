"""What the objects of an image are called in the store."""


def upload_key(image_id: str) -> str:
    """What the user uploaded, byte for byte."""
    return image_id


def disk_key(name: str) -> str:
    """The disk within an uploaded or staged object, unpacked; only there when that is compressed."""
    return f"{name}.disk"


def staged_key(image_id: str) -> str:
    """Bytes that were staged and wait to be imported."""
    return f"{image_id}.staged"


def image_id_of(name: str) -> str:
    """The id of the image that an object belongs to."""
    return name.partition(".")[0]

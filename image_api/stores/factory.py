"""Which store this installation keeps its images in."""

from app.core.errors import OperatorError
from app.core.settings import Settings
from image_api.stores.file import FileStore, Store


def make_store(settings: Settings) -> Store:
    """Files in the state directory, or the bucket that `image_store` names. Raises OperatorError."""
    if not settings.image_store:
        return FileStore(settings.state / "images" / "store")
    try:
        from image_api.stores.s3 import S3Store
    except ImportError:
        raise OperatorError("SIXSTACK_IMAGE_STORE needs boto3: pip install 'sixstack[s3]'.") from None
    return S3Store.connect(settings.image_store)

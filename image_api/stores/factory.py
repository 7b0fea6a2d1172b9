"""Image store factory: selects the store by the settings."""

from app.core.errors import OperatorError
from app.core.settings import Settings
from image_api.stores.file import FileStore, Store


def make_store(settings: Settings) -> Store:
    """Return the S3 store if `image_store` is set, else a file store in the state directory. Raises OperatorError."""
    if not settings.image_store:
        return FileStore(settings.state / "images" / "store")
    try:
        from image_api.stores.s3 import S3Store
    except ImportError:
        raise OperatorError("SIXSTACK_IMAGE_STORE needs boto3: pip install 'sixstack[s3]'.") from None
    return S3Store.connect(settings.image_store)

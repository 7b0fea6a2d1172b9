"""Which images a host may read, and which image it is creating: what its servers and operations need."""

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from app.core import errors
from compute_api import system_metadata
from compute_api.models import Operation, Server
from compute_api.operations import operations


def may_read(session: Session, host: str, image_id: str) -> bool:
    """Whether a server of the host, or one that it has something to do for, stands on the image."""
    busy = select(Operation.server_id).where(Operation.host == host, Operation.state.in_(("queued", "running")))
    query = select(Server.image_id, Server.aside).where(
        or_(Server.host == host, Server.id.in_(busy)), Server.deleted.is_(False)
    )
    return any(image_id == own or image_id in system_metadata.image_ids(other) for own, other in session.execute(query))


def find_operation(session: Session, host: str, image_id: str) -> Operation:
    """What the host makes an image by just now. Raises Forbidden when it makes no such image."""
    for operation in operations.list_running(session, host):
        if operation.arguments.get("image_id") == image_id:
            return operation
    raise errors.Forbidden("This host makes no such image.")

"""Image access of hosts: images that a host may read, and the image that it is creating."""

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from app.core import errors
from compute_api import system_metadata
from compute_api.models import Operation, Server
from compute_api.operations import operations
from compute_api.states import OPEN_OPERATION_STATES


def may_read(session: Session, host: str, image_id: str) -> bool:
    """Return whether a disk of a server of the host, or of a server with an open operation there, is based on the
    image."""
    busy = select(Operation.server_id).where(Operation.host == host, Operation.state.in_(OPEN_OPERATION_STATES))
    query = select(Server.image_id, Server.system_metadata).where(
        or_(Server.host == host, Server.id.in_(busy)), Server.deleted.is_(False)
    )
    return any(image_id == own or image_id in system_metadata.image_ids(other) for own, other in session.execute(query))


def find_operation(session: Session, host: str, image_id: str) -> Operation:
    """Return the running operation that creates the image. Raises Forbidden when there is none."""
    for operation in operations.list_running(session, host):
        if operation.arguments.get("image_id") == image_id:
            return operation
    raise errors.Forbidden("This host is not creating that image.")

"""Image members: projects that an image is shared with. The owner adds and removes them; each accepts or rejects."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.core import errors
from app.core.caller import Caller
from image_api.models import Image, ImageMember
from image_api.states import MemberStatus, Visibility

MAXIMUM_MEMBERS = 128


def check_shared(image: Image) -> None:
    """Raise Forbidden for an image that cannot have members."""
    if image.visibility != Visibility.SHARED:
        raise errors.Forbidden("Only shared images have members.")


def add(session: Session, image: Image, project_id: str, now: datetime) -> ImageMember:
    """Share the image with a project. Raises Forbidden, Conflict when it is a member already, TooLarge, BadRequest."""
    check_shared(image)
    if not 0 < len(project_id) <= 255:
        raise errors.BadRequest("A member must be a project id of 1 to 255 characters.")
    if session.get(ImageMember, (image.id, project_id)) is not None:
        raise errors.Conflict(f"Member {project_id} is duplicated for image {image.id}")
    count = session.scalar(select(func.count()).where(ImageMember.image_id == image.id)) or 0
    if count >= MAXIMUM_MEMBERS:
        raise errors.TooLarge(
            f"The limit has been exceeded on the number of allowed image members for this image. "
            f"Attempted: {count + 1}, Maximum: {MAXIMUM_MEMBERS}"
        )
    row = ImageMember(image_id=image.id, member=project_id, status=MemberStatus.PENDING, created_at=now, updated_at=now)
    session.add(row)
    session.flush()
    return row


def list_members(session: Session, caller: Caller, image: Image) -> Sequence[ImageMember]:
    """Return all members for the owner and admins; a member gets only itself."""
    check_shared(image)
    query = select(ImageMember).where(ImageMember.image_id == image.id)
    if not caller.is_admin and caller.project != image.owner:
        query = query.where(ImageMember.member == caller.project)
    return session.scalars(query.order_by(ImageMember.created_at, ImageMember.member)).all()


def find(session: Session, caller: Caller, image: Image, project_id: str) -> ImageMember:
    """Return a member if the caller is an admin, the owner or that member. Raises NotFound."""
    allowed = caller.is_admin or caller.project in (image.owner, project_id)
    row = session.get(ImageMember, (image.id, project_id)) if allowed else None
    if row is None or image.visibility != Visibility.SHARED:
        raise errors.NotFound(f"{project_id} not found in the member list of the image {image.id}.")
    return row

"""Projects that an image is shared with: the owner adds and removes them, each of them says yes or no."""

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
    """Offer the image to a project. Raises Forbidden, Conflict when it already is, TooLarge, BadRequest."""
    check_shared(image)
    if not 0 < len(project_id) <= 255:
        raise errors.BadRequest("A member is a project's id of 1 to 255 characters.")
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
    """All members for the owner and admins; a member sees itself only."""
    check_shared(image)
    query = select(ImageMember).where(ImageMember.image_id == image.id)
    if not caller.is_admin and caller.project != image.owner:
        query = query.where(ImageMember.member == caller.project)
    return session.scalars(query.order_by(ImageMember.created_at, ImageMember.member)).all()


def find(session: Session, caller: Caller, image: Image, project_id: str) -> ImageMember:
    """A member, if the caller may know of it. Raises NotFound."""
    may_know = caller.is_admin or caller.project in (image.owner, project_id)
    row = session.get(ImageMember, (image.id, project_id)) if may_know else None
    if row is None or image.visibility != Visibility.SHARED:
        raise errors.NotFound(f"{project_id} not found in the member list of the image {image.id}.")
    return row

"""Flavors: queries, creation, access of projects and extra specs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import uuid4

from sqlalchemy import and_, bindparam, or_, select
from sqlalchemy import delete as sql_delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core import errors
from app.core.caller import Caller
from compute_api.models import Flavor, FlavorAccess

DEFAULTS = (
    ("1", "tiny", 1, 128, 1),
    ("2", "small", 1, 512, 5),
    ("3", "medium", 2, 2048, 20),
    ("4", "large", 4, 8192, 80),
)
"""Flavors of a new installation: id, name, vCPUs, RAM in MiB, disk in GiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFlavor:
    """Fields of a new flavor. `id` None means a random UUID. RAM and swap in MiB, disks in GiB."""

    name: str
    vcpus: int
    ram: int
    disk: int
    id: str | None = None
    ephemeral: int = 0
    swap: int = 0
    rxtx_factor: float = 1.0
    is_public: bool = True
    description: str | None = None


_GRANTED = select(FlavorAccess.flavor_id).where(FlavorAccess.project_id == bindparam("project"))
_USABLE = or_(Flavor.is_public.is_(True), Flavor.id.in_(_GRANTED))
_BY_ID = select(Flavor).where(Flavor.id == bindparam("flavor"))
_USABLE_BY_ID = _BY_ID.where(_USABLE)


def find(session: Session, caller: Caller, flavor_id: str) -> Flavor:
    """Return a flavor that the caller may use; admins find all flavors. Raises NotFound."""
    query = _BY_ID if caller.is_admin else _USABLE_BY_ID
    if (flavor := session.scalar(query, {"flavor": flavor_id, "project": caller.project})) is None:
        raise errors.NotFound(f"Flavor {flavor_id} could not be found.")
    return flavor


def list_flavors(
    session: Session,
    caller: Caller,
    *,
    is_public: bool | None = True,
    min_ram: int = 0,
    min_disk: int = 0,
    sort_key: str = "flavorid",
    descending: bool = False,
    limit: int = 1000,
    marker: str | None = None,
) -> list[Flavor]:
    """Flavors in order. `is_public` None lists all (admins); others always see public ones and those given to them."""
    query = select(Flavor).where(Flavor.ram >= min_ram, Flavor.disk >= min_disk)
    if not caller.is_admin or is_public is True:
        query = query.where(_USABLE)
    elif is_public is False:
        query = query.where(Flavor.is_public.is_(False))
    columns = {
        "flavorid": Flavor.id,
        "id": Flavor.id,
        "name": Flavor.name,
        "memory_mb": Flavor.ram,
        "ram": Flavor.ram,
        "root_gb": Flavor.disk,
        "disk": Flavor.disk,
        "vcpus": Flavor.vcpus,
        "created_at": Flavor.seq,
        "updated_at": Flavor.seq,
        "swap": Flavor.swap,
        "ephemeral_gb": Flavor.ephemeral,
        "is_public": Flavor.is_public,
        "rxtx_factor": Flavor.rxtx_factor,
        "disabled": Flavor.seq,
    }
    if (column := columns.get(sort_key)) is None:
        raise errors.BadRequest(
            f"Invalid input for query parameters sort_key. Value: {sort_key}. It is not one of them."
        )
    if marker is not None:
        if (last := session.scalar(select(Flavor).where(Flavor.id == marker))) is None:
            raise errors.BadRequest(f"marker [{marker}] not found")
        value = getattr(last, column.key)
        after = column < value if descending else column > value
        query = query.where(or_(after, and_(column == value, Flavor.seq > last.seq)))
    order = column.desc() if descending else column.asc()
    return list(session.scalars(query.order_by(order, Flavor.seq).limit(limit), {"project": caller.project}))


def create(session: Session, new: NewFlavor) -> Flavor:
    """Create a flavor. Raises Conflict when its name or id exists."""
    flavor = Flavor(
        id=new.id or str(uuid4()),
        name=new.name,
        vcpus=new.vcpus,
        ram=new.ram,
        disk=new.disk,
        ephemeral=new.ephemeral,
        swap=new.swap,
        rxtx_factor=new.rxtx_factor,
        is_public=new.is_public,
        description=new.description,
        extra_specs={},
    )
    for column, value in ((Flavor.id, flavor.id), (Flavor.name, flavor.name)):
        if session.scalar(select(Flavor.seq).where(column == value)) is not None:
            kind = "ID" if column is Flavor.id else "name"
            raise errors.Conflict(f"Flavor with {kind} {value} already exists.")
    session.add(flavor)
    try:
        session.flush()
    except IntegrityError:
        raise errors.Conflict(f"Flavor with name {new.name} already exists.") from None
    return flavor


def update(session: Session, caller: Caller, flavor_id: str, *, description: str | None) -> Flavor:
    """Change the flavor's description. Raises NotFound."""
    flavor = find(session, caller, flavor_id)
    flavor.description = description
    return flavor


def delete(session: Session, caller: Caller, flavor_id: str) -> None:
    """Delete the flavor. Its servers keep their copy of it. Raises NotFound."""
    session.delete(find(session, caller, flavor_id))


def set_extra_specs(session: Session, caller: Caller, flavor_id: str, specs: Mapping[str, str]) -> dict[str, str]:
    """Add or replace extra specs and return all of them. Raises NotFound, BadRequest for invalid names."""
    for key in specs:
        if not re.fullmatch(r"[A-Za-z0-9_.:\- ]{1,255}", key):
            raise errors.BadRequest(
                f"Invalid input for field/attribute extra_specs. Value: {key!r}. It is no valid name."
            )
    flavor = find(session, caller, flavor_id)
    flavor.extra_specs = {**flavor.extra_specs, **specs}
    return flavor.extra_specs


def delete_extra_spec(session: Session, caller: Caller, flavor_id: str, key: str) -> None:
    """Remove one extra spec. Raises NotFound."""
    flavor = find(session, caller, flavor_id)
    if key not in flavor.extra_specs:
        raise errors.NotFound(f"Flavor {flavor_id} has no extra specs with key {key}.")
    flavor.extra_specs = {name: value for name, value in flavor.extra_specs.items() if name != key}


def list_access(session: Session, caller: Caller, flavor_id: str) -> list[str]:
    """List the ids of the projects that may use a private flavor. Raises NotFound for a public one."""
    flavor = find(session, caller, flavor_id)
    if flavor.is_public:
        raise errors.NotFound("Access list not available for public flavors.")
    query = select(FlavorAccess.project_id).where(FlavorAccess.flavor_id == flavor_id)
    return list(session.scalars(query.order_by(FlavorAccess.project_id)))


def grant_access(session: Session, caller: Caller, flavor_id: str, project_id: str) -> None:
    """Allow a project to use the flavor. Raises Conflict when it has access already."""
    find(session, caller, flavor_id)
    if session.get(FlavorAccess, (flavor_id, project_id)) is not None:
        raise errors.Conflict(
            f"Flavor access already exists for flavor {flavor_id} and project {project_id} combination."
        )
    session.add(FlavorAccess(flavor_id=flavor_id, project_id=project_id))


def revoke_access(session: Session, caller: Caller, flavor_id: str, project_id: str) -> None:
    """Remove a project's access to the flavor. Raises NotFound when it has none."""
    find(session, caller, flavor_id)
    row = FlavorAccess.flavor_id == flavor_id, FlavorAccess.project_id == project_id
    if not session.execute(sql_delete(FlavorAccess).where(*row).returning(FlavorAccess.project_id)).all():
        raise errors.NotFound(f"Flavor access not found for {flavor_id} / {project_id} combination.")


def ensure_defaults(session: Session) -> None:
    """Create the default flavors unless any flavor exists."""
    if session.scalar(select(Flavor.seq).limit(1)) is None:
        for flavor_id, name, vcpus, ram, disk in DEFAULTS:
            create(session, NewFlavor(id=flavor_id, name=name, vcpus=vcpus, ram=ram, disk=disk))

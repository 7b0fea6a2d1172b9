"""Quotas: limits of projects and users, and usage claims. Usage is one row per project, updated with the servers."""

import base64
from collections.abc import Mapping, Sequence

from sqlalchemy import bindparam, func, select, update
from sqlalchemy import delete as sql_delete
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.core import errors
from compute_api.models import ProjectUsage, QuotaLimit, UserQuotaLimit

DEFAULTS: dict[str, int] = {
    "instances": 100,
    "cores": 200,
    "ram": 204800,
    "metadata_items": 128,
    "key_pairs": 100,
    "server_groups": 10,
    "server_group_members": 10,
    "injected_files": 5,
    "injected_file_content_bytes": 10240,
    "injected_file_path_bytes": 255,
    "fixed_ips": -1,
    "floating_ips": 0,
    "security_groups": 0,
    "security_group_rules": 0,
}
"""Default limits; -1 is unlimited. Instances, cores and RAM (MiB) are counted."""

COUNTED = ("instances", "cores", "ram")


DEFAULT_PROJECT = ""
"""Project id of rows that override the defaults of all projects."""

_LIMITS = (
    select(QuotaLimit.resource, QuotaLimit.limit)
    .where(QuotaLimit.project_id.in_((DEFAULT_PROJECT, bindparam("project"))))
    .order_by(QuotaLimit.project_id)
)
_USER_LIMITS = select(UserQuotaLimit.resource, UserQuotaLimit.limit).where(
    UserQuotaLimit.project_id == bindparam("project"), UserQuotaLimit.user_id == bindparam("user")
)
_CLAIM = (
    update(ProjectUsage)
    .where(ProjectUsage.project_id == bindparam("project"))
    .values({name: getattr(ProjectUsage, name) + bindparam(f"more_{name}") for name in COUNTED})
    .returning(*(getattr(ProjectUsage, name) for name in COUNTED))
    .execution_options(synchronize_session=False)
)
"""Run for every new server, so built once: building a statement takes longer than running it."""


def limits(session: Session, project_id: str) -> dict[str, int]:
    """Return the project's limits."""
    return DEFAULTS | dict(session.execute(_LIMITS, {"project": project_id}).all())


def defaults(session: Session) -> dict[str, int]:
    """Return the limits of projects without limits of their own."""
    return limits(session, DEFAULT_PROJECT)


def set_limits(session: Session, project_id: str, wanted: Mapping[str, int]) -> None:
    """Set limits of the project."""
    session.execute(sql_delete(QuotaLimit).where(QuotaLimit.project_id == project_id, QuotaLimit.resource.in_(wanted)))
    session.add_all(QuotaLimit(project_id=project_id, resource=name, limit=limit) for name, limit in wanted.items())


def reset(session: Session, project_id: str) -> None:
    """Remove the limits of the project and of its users: the defaults apply."""
    session.execute(sql_delete(QuotaLimit).where(QuotaLimit.project_id == project_id))
    session.execute(sql_delete(UserQuotaLimit).where(UserQuotaLimit.project_id == project_id))


def user_limits(session: Session, project_id: str, user_id: str) -> dict[str, int]:
    """Return the limits that the user has in the project."""
    return dict(session.execute(_USER_LIMITS, {"project": project_id, "user": user_id}).all())


def effective_limits(session: Session, project_id: str, user_id: str | None) -> dict[str, int]:
    """Return the limits of a project, or with `user_id` those of a user in it."""
    own = {} if user_id is None else user_limits(session, project_id, user_id)
    return limits(session, project_id) | own


def set_user_limits(session: Session, project_id: str, user_id: str, wanted: Mapping[str, int]) -> None:
    """Limit what one user may use of the project's quota."""
    own = (UserQuotaLimit.project_id == project_id, UserQuotaLimit.user_id == user_id)
    session.execute(sql_delete(UserQuotaLimit).where(*own, UserQuotaLimit.resource.in_(wanted)))
    session.add_all(
        UserQuotaLimit(project_id=project_id, user_id=user_id, resource=name, limit=limit)
        for name, limit in wanted.items()
    )


def reset_user(session: Session, project_id: str, user_id: str) -> None:
    """Remove the user's limits: the project's apply."""
    own = (UserQuotaLimit.project_id == project_id, UserQuotaLimit.user_id == user_id)
    session.execute(sql_delete(UserQuotaLimit).where(*own))


def largest_user_limits(session: Session, project_id: str, user_id: str) -> dict[str, int]:
    """Return the largest limits the user may get: the project's less those of its other users; -1 is unlimited."""
    others = (
        select(UserQuotaLimit.resource, func.sum(UserQuotaLimit.limit))
        .where(UserQuotaLimit.project_id == project_id, UserQuotaLimit.user_id != user_id, UserQuotaLimit.limit > 0)
        .group_by(UserQuotaLimit.resource)
    )
    given = dict(session.execute(others).all())
    return {
        name: limit if limit < 0 else max(limit - int(given.get(name, 0)), 0)
        for name, limit in limits(session, project_id).items()
    }


def usage(session: Session, project_id: str) -> dict[str, int]:
    """Return the project's usage of counted resources."""
    row = session.get(ProjectUsage, project_id)
    return {name: getattr(row, name) if row else 0 for name in COUNTED}


def claim(
    session: Session,
    project_id: str,
    limit: Mapping[str, int],
    *,
    instances: int,
    cores: int,
    ram: int,
    at_least: int = 0,
) -> int:
    """Claim quota for up to `instances` servers of `cores` and `ram` MiB each; returns how many fit, `at_least` or
    more.

    Raises QuotaExceeded in Nova's words. The row is locked until the transaction ends.
    """
    each = {"instances": 1, "cores": cores, "ram": ram}
    used = _count_up(session, project_id, {name: instances * need for name, need in each.items()})
    fits = instances
    for name, need in each.items():
        if limit[name] >= 0 and need > 0:
            fits = min(fits, (limit[name] - used[name]) // need)
    enough = fits >= max(at_least, 1)
    if over := instances - fits if enough else instances:
        add(session, project_id, **{name: -over * need for name, need in each.items()})
    if not enough:
        raise_exceeded(used, limit, each, instances)
    return fits


def _count_up(session: Session, project_id: str, wanted: Mapping[str, int]) -> dict[str, int]:
    """Increment usage and lock the row; returns the usage before."""
    values = {"project": project_id} | {f"more_{name}": more for name, more in wanted.items()}
    row = session.execute(_CLAIM, values).one_or_none()
    if row is None:
        _ensure_row(session, project_id)
        row = session.execute(_CLAIM, values).one()
    return {name: after - wanted[name] for name, after in row._asdict().items()}


def add(session: Session, project_id: str, *, instances: int = 0, cores: int = 0, ram: int = 0) -> None:
    """Add to the project's usage; negative numbers release."""
    session.execute(
        update(ProjectUsage)
        .where(ProjectUsage.project_id == project_id)
        .values(
            instances=ProjectUsage.instances + instances,
            cores=ProjectUsage.cores + cores,
            ram=ProjectUsage.ram + ram,
        )
        .execution_options(synchronize_session=False)
    )


def _ensure_row(session: Session, project_id: str) -> None:
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    row = {"project_id": project_id, "instances": 0, "cores": 0, "ram": 0}
    session.execute(insert(ProjectUsage).values(row).on_conflict_do_nothing())


def check_files(limits: Mapping[str, int], files: Sequence[Mapping[str, str]]) -> None:
    """Raise QuotaExceeded for injected files that are too many or too large. `contents` is base64."""
    most, longest, largest = (limits[f"injected_file{name}"] for name in ("s", "_path_bytes", "_content_bytes"))
    if 0 <= most < len(files):
        raise errors.QuotaExceeded(f"Personality file limit exceeded: {most}")
    for file in files:
        if 0 <= longest < len(file["path"]):
            raise errors.QuotaExceeded(f"Personality file path exceeds maximum {longest}")
        if 0 <= largest < len(base64.b64decode(file["contents"])):
            raise errors.QuotaExceeded(f"Personality file content exceeds maximum {largest}")


def check_metadata(limits: Mapping[str, int], metadata: Mapping[str, str]) -> None:
    """Raise QuotaExceeded for more metadata items than the limits allow."""
    limit = limits["metadata_items"]
    if 0 <= limit < len(metadata):
        raise errors.QuotaExceeded(
            f"Quota exceeded for metadata_items: maximum number of metadata items exceeds {limit}"
        )


def raise_exceeded(used: Mapping[str, int], limit: Mapping[str, int], each: Mapping[str, int], instances: int) -> None:
    """Raise QuotaExceeded in Nova's words, naming each resource that is over its limit."""
    over = [
        name for name, need in each.items() if limit[name] >= 0 and used[name] + need * max(instances, 1) > limit[name]
    ]
    requested = ", ".join(str(each[name] * instances) for name in over)
    already = ", ".join(str(used[name]) for name in over)
    allowed = ", ".join(str(limit[name]) for name in over)
    raise errors.QuotaExceeded(
        f"Quota exceeded for {', '.join(over)}: Requested {requested}, but already used {already} of {allowed} "
        f"{', '.join(over)}"
    )

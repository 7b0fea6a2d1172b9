"""Initial content of a new installation: domain, projects, users, roles and catalog."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core.settings import Settings
from identity_api.auth import passwords as hashing
from identity_api.epoch import ROW_ID
from identity_api.models import (
    Assignment,
    CatalogService,
    Endpoint,
    Epoch,
    Implication,
    Project,
    Region,
    Role,
    User,
)

DEFAULT_DOMAIN = "default"
ROLES = ("admin", "manager", "member", "reader", "service")
IMPLIED = (("admin", "manager"), ("manager", "member"), ("member", "reader"))
IMMUTABLE = {"immutable": True}
SERVICES = (
    ("identity", "keystone", "/identity"),
    ("image", "glance", "/image"),
    ("compute", "nova", "/compute/v2.1"),
    ("network", "neutron", "/network"),
    ("block-storage", "cinder", "/volume/v3"),
    ("volumev3", "cinderv3", "/volume/v3"),
    ("volume", "cinder", "/volume/v3"),
)
"""Type, name and path, as in DevStack. Clients older than the service types authority look for volumev3 or volume."""
INTERFACES = ("public", "internal", "admin")


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapResult:
    """Ids of the initial resources. `passwords` by user name, only from the call that created the users."""

    domain_id: str
    admin_project_id: str
    demo_project_id: str
    admin_user_id: str
    demo_user_id: str
    passwords: dict[str, str] | None


def bootstrap(
    session: Session, now: datetime, settings: Settings, *, passwords: Mapping[str, str] | None = None
) -> BootstrapResult:
    """Fill an empty database; leave others unchanged, so that resources deleted by an operator do not reappear.

    `passwords` for the users admin and demo; random if absent.
    """
    if session.get(Epoch, ROW_ID) is not None:
        return _load_existing(session)
    session.add(Epoch(id=ROW_ID, value=0))
    domain = Project(
        id=DEFAULT_DOMAIN, name="Default", is_domain=True, description="The default domain", created_at=now
    )
    session.add(domain)
    session.flush()
    projects = {name: _create_project(session, name, now) for name in ("admin", "demo", "service")}
    initial_passwords = {name: (passwords or {}).get(name) or secrets.token_urlsafe(24) for name in ("admin", "demo")}
    users = {
        name: _create_user(session, name, initial_passwords[name], projects[name].id, now) for name in initial_passwords
    }
    roles = _create_roles(session, now)
    for target_kind, target_id in (
        ("project", projects["admin"].id),
        ("domain", domain.id),
        ("system", "system"),
    ):
        _create_assignment(session, users["admin"].id, target_kind, target_id, roles["admin"].id)
    _create_assignment(session, users["demo"].id, "project", projects["demo"].id, roles["member"].id)
    _create_catalog(session, settings.region, now)
    session.flush()
    return BootstrapResult(
        domain_id=domain.id,
        admin_project_id=projects["admin"].id,
        demo_project_id=projects["demo"].id,
        admin_user_id=users["admin"].id,
        demo_user_id=users["demo"].id,
        passwords=initial_passwords,
    )


def _load_existing(session: Session) -> BootstrapResult:
    def id_of(model: type[Project] | type[User], name: str) -> str:
        query: Any = select(model.id).where(model.domain_id == DEFAULT_DOMAIN, model.name == name)
        return session.scalar(query) or ""

    return BootstrapResult(
        domain_id=DEFAULT_DOMAIN,
        admin_project_id=id_of(Project, "admin"),
        demo_project_id=id_of(Project, "demo"),
        admin_user_id=id_of(User, "admin"),
        demo_user_id=id_of(User, "demo"),
        passwords=None,
    )


def _create_project(session: Session, name: str, now: datetime) -> Project:
    project = Project(id=uuid4().hex, name=name, domain_id=DEFAULT_DOMAIN, parent_id=DEFAULT_DOMAIN, created_at=now)
    session.add(project)
    return project


def _create_user(session: Session, name: str, password: str, project_id: str, now: datetime) -> User:
    user = User(
        id=uuid4().hex,
        name=name,
        domain_id=DEFAULT_DOMAIN,
        default_project_id=project_id,
        password=hashing.hash_password(password),
        password_changed_at=now,
        created_at=now,
    )
    session.add(user)
    return user


def _create_roles(session: Session, now: datetime) -> dict[str, Role]:
    roles = {name: Role(id=uuid4().hex, name=name, options=IMMUTABLE, created_at=now) for name in ROLES}
    session.add_all(roles.values())
    session.flush()
    session.add_all(Implication(prior_id=roles[prior].id, implied_id=roles[below].id) for prior, below in IMPLIED)
    return roles


def _create_assignment(session: Session, user_id: str, target_kind: str, target_id: str, role_id: str) -> None:
    session.add(
        Assignment(actor_kind="user", actor_id=user_id, target_kind=target_kind, target_id=target_id, role_id=role_id)
    )


def _create_catalog(session: Session, region: str, now: datetime) -> None:
    session.add(Region(id=region))
    session.flush()
    for order, (kind, name, path) in enumerate(SERVICES):
        # Lists are sorted by creation time.
        service = CatalogService(
            id=uuid4().hex, type=kind, name=name, created_at=now + timedelta(microseconds=10 * order)
        )
        session.add(service)
        session.flush()
        session.add_all(
            Endpoint(
                id=uuid4().hex,
                service_id=service.id,
                region_id=region,
                interface=interface,
                url=path,
                created_at=service.created_at + timedelta(microseconds=position),
            )
            for position, interface in enumerate(INTERFACES)
        )

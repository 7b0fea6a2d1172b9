"""Application credentials and access rules."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import errors
from identity_api import epoch
from identity_api.assignments import effective
from identity_api.conflicts import conflict_on_duplicate
from identity_api.directory import users
from identity_api.listing import Page, list_page
from identity_api.models import AccessRuleRow, ApplicationCredential, Project, Role


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRuleSpec:
    """An access rule by id, or by service, method and path."""

    id: str | None = None
    service: str = ""
    method: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class Details:
    """An application credential with its roles and access rules by id."""

    credential: ApplicationCredential
    roles: Mapping[str, Role]
    rules: Mapping[str, AccessRuleRow]


def find(session: Session, user_id: str, credential_id: str) -> ApplicationCredential:
    credential = session.get(ApplicationCredential, credential_id)
    if credential is None or credential.user_id != user_id:
        raise errors.NotFound(f"Could not find Application Credential: {credential_id}.")
    return credential


def list_credentials(session: Session, user_id: str, arguments: Mapping[str, str]) -> Page[ApplicationCredential]:
    """List the application credentials of a user by name; filter: name. Raises NotFound."""
    users.find(session, user_id)
    return list_page(
        session,
        select(ApplicationCredential).where(ApplicationCredential.user_id == user_id),
        arguments,
        sort_key=ApplicationCredential.name,
        id_column=ApplicationCredential.id,
        filters={"name": ApplicationCredential.name},
    )


def list_rules(session: Session, user_id: str, arguments: Mapping[str, str]) -> Page[AccessRuleRow]:
    """List the access rules of a user by path; filters: service, method, path. Raises NotFound."""
    users.find(session, user_id)
    return list_page(
        session,
        select(AccessRuleRow).where(AccessRuleRow.user_id == user_id),
        arguments,
        sort_key=AccessRuleRow.path,
        id_column=AccessRuleRow.id,
        filters={"service": AccessRuleRow.service, "method": AccessRuleRow.method, "path": AccessRuleRow.path},
    )


def is_unrestricted(session: Session, credential_id: str) -> bool:
    """Whether the credential exists and may manage application credentials."""
    credential = session.get(ApplicationCredential, credential_id)
    return credential is not None and credential.unrestricted


def create(
    session: Session,
    now: datetime,
    *,
    id_: str,
    user_id: str,
    project_id: str,
    name: str,
    digest: str,
    expires_at: datetime | None,
    unrestricted: bool,
    roles: Sequence[Mapping[str, Any]] | None,
    held_roles: frozenset[str],
    rules: Sequence[AccessRuleSpec] | None,
    description: str | None,
) -> ApplicationCredential:
    """Create a credential with some or all (None) of the user's roles. Raises BadRequest, Conflict.

    None or an empty list of rules means no restriction, as in Keystone.
    """
    if expires_at is not None and expires_at <= now:
        raise errors.BadRequest(
            "The 'expires_at' must not be before now. The server could not comply with the request since it is "
            "either malformed or otherwise incorrect. The client is assumed to be in error."
        )
    credential = ApplicationCredential(
        id=id_,
        user_id=user_id,
        project_id=project_id,
        name=name,
        digest=digest,
        expires_at=expires_at,
        unrestricted=unrestricted,
        role_ids=_resolve_role_ids(session, roles, held_roles),
        access_rule_ids=[_ensure_rule(session, user_id, rule).id for rule in rules] if rules else None,
        description=description,
        created_at=now,
    )
    with conflict_on_duplicate(session, "application_credential", name):
        session.add(credential)
    return credential


def remove(session: Session, credential: ApplicationCredential) -> None:
    session.delete(credential)
    session.flush()
    epoch.bump(session)


def load_details(session: Session, credentials: Sequence[ApplicationCredential]) -> list[Details]:
    """Load the roles and access rules of the credentials."""
    roles, rules = load_roles(session, credentials), load_access_rules(session, credentials)
    return [Details(credential, roles, rules) for credential in credentials]


def load_roles(session: Session, credentials: Iterable[ApplicationCredential]) -> dict[str, Role]:
    """Return the roles of these credentials by id."""
    ids = {role_id for credential in credentials for role_id in credential.role_ids}
    return {role.id: role for role in session.scalars(select(Role).where(Role.id.in_(ids)))}


def load_access_rules(session: Session, credentials: Iterable[ApplicationCredential]) -> dict[str, AccessRuleRow]:
    """Return the access rules of these credentials by id."""
    ids = {rule_id for credential in credentials for rule_id in credential.access_rule_ids or ()}
    return {rule.id: rule for rule in session.scalars(select(AccessRuleRow).where(AccessRuleRow.id.in_(ids)))}


def remove_stale(session: Session, user_ids: Iterable[str]) -> None:
    """Delete credentials of these users that hold a role which the user no longer has."""
    query = select(ApplicationCredential).where(ApplicationCredential.user_id.in_(list(user_ids)))
    credentials = session.scalars(query).all()
    if not credentials:
        return
    graph = effective.load_role_graph(session)
    for credential in credentials:
        project = session.get_one(Project, credential.project_id)
        assert project.domain_id is not None
        own = effective.find_project_roles(
            session, credential.user_id, project.id, project.domain_id, project.parent_id
        )
        if not set(credential.role_ids) <= graph.closure(own):
            session.delete(credential)
    session.flush()


def remove_with_role(session: Session, role_id: str) -> None:
    """Delete credentials that hold this role. Call before deleting the role."""
    for credential in session.scalars(select(ApplicationCredential)):
        if role_id in credential.role_ids:
            session.delete(credential)
    session.flush()


def find_rule(session: Session, user_id: str, rule_id: str) -> AccessRuleRow:
    rule = session.get(AccessRuleRow, rule_id)
    if rule is None or rule.user_id != user_id:
        raise errors.NotFound(f"Could not find Access Rule: {rule_id}.")
    return rule


def remove_rule(session: Session, rule: AccessRuleRow) -> None:
    """Delete the rule. Raises Forbidden if a credential uses it."""
    query = select(ApplicationCredential).where(ApplicationCredential.user_id == rule.user_id)
    if any(rule.id in (credential.access_rule_ids or ()) for credential in session.scalars(query)):
        raise errors.Forbidden(
            f"Cannot delete access rule {rule.id}: it is in use by an application credential of the user."
        )
    session.delete(rule)


def _resolve_role_ids(
    session: Session, requested: Sequence[Mapping[str, Any]] | None, held_roles: frozenset[str]
) -> list[str]:
    held = {
        role.id: role for role in session.scalars(select(Role).where(Role.domain_id == "", Role.name.in_(held_roles)))
    }
    if not requested:
        return sorted(held)
    by_name = {role.name: role.id for role in held.values()}
    role_ids: list[str] = []
    for role in requested:
        role_id = role["id"] if role.get("id") else by_name.get(role.get("name") or "")
        if role_id not in held:
            raise errors.BadRequest(
                "Invalid application credential: Could not find role assignment with role: "
                f"{role.get('id') or role.get('name')} for the user in this project."
            )
        role_ids.append(role_id)
    return list(dict.fromkeys(role_ids))


def _ensure_rule(session: Session, user_id: str, spec: AccessRuleSpec) -> AccessRuleRow:
    """Find or create the user's access rule."""
    if spec.id is not None:
        return find_rule(session, user_id, spec.id)
    query = select(AccessRuleRow).where(
        AccessRuleRow.user_id == user_id,
        AccessRuleRow.service == spec.service,
        AccessRuleRow.method == spec.method,
        AccessRuleRow.path == spec.path,
    )
    rule = session.scalar(query)
    if rule is None:
        rule = AccessRuleRow(id=uuid4().hex, user_id=user_id, service=spec.service, method=spec.method, path=spec.path)
        session.add(rule)
        session.flush()
    return rule

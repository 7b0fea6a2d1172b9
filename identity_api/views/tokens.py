"""How tokens and the catalog look."""

from datetime import datetime
from typing import Any

from app.web.links import url
from identity_api.directory.catalog import CatalogEntry, render_url
from identity_api.tokens.context import NamedResource, TokenContext

Shown = dict[str, Any]


def format_time(time: datetime | None) -> str | None:
    """A time as Keystone writes it."""
    return None if time is None else time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def token(subject: TokenContext, entries: tuple[CatalogEntry, ...] | None) -> Shown:
    """The body of a token; without a catalog when `entries` is None or the token is for nothing in particular."""
    payload, it = subject.payload, subject.standing
    shown: Shown = {
        "methods": payload.methods.names(),
        "user": {**_render_with_domain(it.user), "password_expires_at": format_time(it.password_expires_at)},
        "audit_ids": list(subject.audit_ids),
        "expires_at": format_time(payload.expires_at),
        "issued_at": format_time(payload.issued_at),
    }
    if it.project:
        shown["project"] = _render_with_domain(it.project)
        shown["is_domain"] = False
    if it.domain:
        shown["domain"] = {"id": it.domain.id, "name": it.domain.name}
    if it.system:
        shown["system"] = {"all": True}
    if it.roles:
        shown["roles"] = [{"id": role.id, "name": role.name} for role in it.roles]
        if entries is not None:
            shown["catalog"] = catalog(entries, it.project.id if it.project else None, it.user.id)
    if it.credential:
        used = it.credential
        shown["application_credential"] = {"id": used.id, "name": used.name, "restricted": not used.unrestricted}
        if used.rules is not None:
            shown["application_credential"]["access_rules"] = [
                {"id": id_, "service": rule.service, "method": rule.method, "path": rule.path}
                for id_, rule in used.rules
            ]
    return {"token": shown}


def catalog(entries: tuple[CatalogEntry, ...], project_id: str | None, user_id: str) -> list[Shown]:
    """The services with their endpoints; URLs without a host of their own get the one the client came by."""
    base = url("")
    return [
        {
            "id": entry.service.id,
            "type": entry.service.type,
            "name": entry.service.name or "",
            "endpoints": [
                {
                    "id": endpoint.id,
                    "interface": endpoint.interface,
                    "region": endpoint.region_id,
                    "region_id": endpoint.region_id,
                    "url": address,
                }
                for endpoint in entry.endpoints
                if (address := render_url(endpoint.url, base, project_id, user_id)) is not None
            ],
        }
        for entry in entries
    ]


def _render_with_domain(named: NamedResource) -> Shown:
    return {
        "id": named.id,
        "name": named.name,
        "domain": {"id": named.domain_id, "name": named.domain_name},
    }

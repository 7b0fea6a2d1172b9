"""Response bodies of tokens and the catalog."""

from datetime import datetime
from typing import Any

from app.web.links import url
from identity_api.directory.catalog import CatalogEntry, render_url
from identity_api.tokens.context import NamedResource, TokenContext

JsonObject = dict[str, Any]


def format_time(time: datetime | None) -> str | None:
    """Format a time as Keystone does."""
    return None if time is None else time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def token(subject: TokenContext, entries: tuple[CatalogEntry, ...] | None) -> JsonObject:
    """Render a token; without catalog if `entries` is None or the token is unscoped."""
    payload, auth = subject.payload, subject.auth_context
    rendered: JsonObject = {
        "methods": payload.methods.names(),
        "user": {**_render_with_domain(auth.user), "password_expires_at": format_time(auth.password_expires_at)},
        "audit_ids": list(subject.audit_ids),
        "expires_at": format_time(payload.expires_at),
        "issued_at": format_time(payload.issued_at),
    }
    if auth.project:
        rendered["project"] = _render_with_domain(auth.project)
        rendered["is_domain"] = False
    if auth.domain:
        rendered["domain"] = {"id": auth.domain.id, "name": auth.domain.name}
    if auth.system:
        rendered["system"] = {"all": True}
    if auth.roles:
        rendered["roles"] = [{"id": role.id, "name": role.name} for role in auth.roles]
        if entries is not None:
            rendered["catalog"] = catalog(entries, auth.project.id if auth.project else None, auth.user.id)
    if auth.credential:
        used = auth.credential
        rendered["application_credential"] = {"id": used.id, "name": used.name, "restricted": not used.unrestricted}
        if used.rules is not None:
            rendered["application_credential"]["access_rules"] = [
                {"id": id_, "service": rule.service, "method": rule.method, "path": rule.path}
                for id_, rule in used.rules
            ]
    return {"token": rendered}


def catalog(entries: tuple[CatalogEntry, ...], project_id: str | None, user_id: str) -> list[JsonObject]:
    """Render the catalog; paths are completed with the public URL or the request's host."""
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


def _render_with_domain(named: NamedResource) -> JsonObject:
    return {
        "id": named.id,
        "name": named.name,
        "domain": {"id": named.domain_id, "name": named.domain_name},
    }

"""Servers: created, found and acted upon, each in one transaction of the caller's. How it ends: `finishing`."""

import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, Literal
from uuid import uuid4

from sqlalchemy import Select, bindparam, select, update
from sqlalchemy.orm import Session

from app.core import errors
from app.core.caller import Caller
from compute_api import keypairs, quotas, system_metadata
from compute_api.faults import mark_failed
from compute_api.flavors import extra_specs, flavors
from compute_api.hosts import hosts
from compute_api.models import Flavor, KeyPair, Server, ServerGroup
from compute_api.operations import operations
from compute_api.operations.completion import image_reference, mark_deleted
from compute_api.scheduler import claims, scheduling, server_groups
from compute_api.states import DELETE, SPAWN, Action, PowerState, TaskState, VmState
from image_api import images
from image_api.models import Image
from network_api.models import Network
from network_api.resources import networks, ports


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRequest:
    """One interface that is asked for: on a network, perhaps with an address, or an existing port."""

    network_id: str | None = None
    address: str | None = None
    port_id: str | None = None
    tag: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewServer:
    """What POST /servers asks for."""

    name: str
    flavor_id: str
    image_id: str
    networks: Literal["auto", "none"] | tuple[NetworkRequest, ...] = "auto"
    key_name: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    description: str | None = None
    hostname: str | None = None
    user_data: str | None = None
    files: tuple[dict[str, str], ...] = ()
    """Files that the guest writes at its first boot: `path`, and `contents` in base64."""
    admin_pass: str | None = None
    disk_config: str = "MANUAL"
    access_ipv4: str = ""
    access_ipv6: str = ""
    zone: str | None = None
    host: str | None = None
    forced: bool = False
    """Nothing but room decides about the host."""
    same_host: tuple[str, ...] = ()
    different_host: tuple[str, ...] = ()
    group_id: str | None = None
    ephemeral_gib: tuple[int | None, ...] = ()
    swap_mib: tuple[int, ...] = ()
    min_count: int = 1
    max_count: int = 1


@dataclass(frozen=True, slots=True)
class CreatedServers:
    """What POST /servers made; the password is shown once."""

    servers: list[Server]
    admin_pass: str
    reservation_id: str


def find(session: Session, caller: Caller, server_id: str, *, deleted: bool = False) -> Server:
    """The caller's server; an admin finds every project's."""
    query = _by_id_query(own=not caller.is_admin, deleted=deleted)
    if (found := session.scalar(query, {"server": server_id, "project": caller.project})) is None:
        raise errors.NotFound(f"Instance {server_id} could not be found.")
    return found


@cache
def _by_id_query(*, own: bool, deleted: bool) -> Select[Server]:
    query = select(Server).where(Server.id == bindparam("server"))
    if own:
        query = query.where(Server.project_id == bindparam("project"))
    return query if deleted else query.where(Server.deleted.is_(False))


def create(session: Session, now: datetime, caller: Caller, new: NewServer, request_id: str) -> CreatedServers:
    """Rows, quota, addresses, room on hosts and the operations to make it true. Raises what is wrong with the request.

    A server that no host has room for exists afterwards in ERROR, with a fault that says what was missing.
    """
    project_id = caller.require_project()
    flavor = _find_flavor(session, caller, new.flavor_id)
    extra_specs.check_supported(flavor.extra_specs, flavor.vcpus)
    image = find_usable_image(session, caller, new.image_id, flavor)
    key = _find_key(session, caller, new.key_name)
    wanted = _find_networks(session, caller, new)
    limits = quotas.limits(session, project_id)
    _check_metadata_quota(limits, new.metadata)
    quotas.check_files(limits, new.files)
    if new.host and not new.forced and not hosts.is_known(session, new.host):
        raise errors.BadRequest(f"Compute host {new.host} could not be found.")
    if new.zone and not hosts.is_zone(session, new.zone):
        raise errors.BadRequest(f"The requested availability zone is not available: {new.zone}")
    group = _find_group(session, caller, new.group_id)
    count = quotas.claim(
        session,
        project_id,
        limits,
        instances=new.max_count,
        cores=flavor.vcpus,
        ram=flavor.ram,
        at_least=new.min_count,
    )
    allowed = claims.within_user_limits(
        session, project_id, caller.user_id, flavor_copy(flavor), count=count, at_least=new.min_count
    )
    if less := count - allowed:
        quotas.add(session, project_id, instances=-less, cores=-less * flavor.vcpus, ram=-less * flavor.ram)
        count = allowed
    if group:
        server_groups.check_members(session, group, count)
    admin_pass = new.admin_pass or secrets.token_urlsafe(9)
    reservation_id = f"r-{secrets.token_hex(4)}"
    made = []
    for index in range(count):
        name = new.name if new.max_count == 1 else f"{new.name}-{index + 1}"
        server_id = str(uuid4())
        hostname = new.hostname or sanitize_hostname(name, server_id)
        server = Server(
            id=server_id,
            project_id=project_id,
            user_id=caller.user_id,
            name=name,
            description=new.description,
            hostname=hostname if not new.hostname or new.max_count == 1 else f"{hostname}-{index + 1}",
            flavor=flavor_copy(flavor),
            flavor_id=flavor.id,
            image=image_copy(image),
            image_id=image.id,
            key={"name": key.name, "type": key.type, "data": key.public_key} if key else {},
            user_data=new.user_data,
            metadata_=new.metadata,
            tags=sorted(set(new.tags)),
            config_drive=True,
            disk_config=new.disk_config,
            admin_pass=admin_pass,
            reservation_id=reservation_id,
            launch_index=index,
            availability_zone=new.zone or "",
            pinned_zone=new.zone,
            vm_state=VmState.BUILDING,
            task_state=TaskState.SPAWNING,
            power_state=PowerState.NOSTATE,
            generation=1,
            locked=False,
            access_ipv4=new.access_ipv4,
            access_ipv6=new.access_ipv6,
            fault={},
            aside=_blank_disks(flavor, new),
            created_at=now,
            updated_at=now,
            deleted=False,
            group_id=group.id if group else None,
            revision=0,
        )
        if new.files:
            system_metadata.set_item(server, system_metadata.FILES, list(new.files))
        scheduling.store_hints(
            server,
            host=new.host,
            forced=new.forced,
            same_host=new.same_host,
            different_host=new.different_host,
        )
        _schedule(session, now, server)
        _create_ports(session, now, caller, server, wanted)
        session.add(server)  # now that it is complete: one INSERT, and no UPDATE
        operations.begin_action(session, now, server, SPAWN.name, request_id, caller.user_id)
        if server.host:
            operations.queue(session, now, server, SPAWN.task, request_id, {})
        else:
            operations.end_action(session, now, server.id, request_id, server.fault["message"])
        made.append(server)
    session.flush()
    return CreatedServers(made, admin_pass, reservation_id)


def start_action(
    session: Session,
    now: datetime,
    caller: Caller,
    server: Server,
    action: Action,
    request_id: str,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Start an action on a server that allows it now. Raises Conflict in Nova's words."""
    claim_action(session, now, caller, server, action, request_id)
    operations.queue(session, now, server, action.task, request_id, arguments or {})


def claim_action(
    session: Session,
    now: datetime,
    caller: Caller,
    server: Server,
    action: Action,
    request_id: str,
    *,
    recorded_as: str | None = None,
) -> None:
    """The same, with nothing yet for a host to do; one UPDATE checks and claims. `recorded_as`: how the list of what
    was done to the server names it, where that is not the action's name."""
    check_lock(caller, server)
    statement = update(Server).where(
        Server.id == server.id, Server.deleted.is_(False), Server.vm_state.in_(action.allowed_from)
    )
    if action.interrupts:
        statement = statement.where(Server.task_state.is_(None) | Server.task_state.in_(action.interrupts))
    else:
        statement = statement.where(Server.task_state.is_(None))
    statement = statement.values(task_state=action.task, generation=Server.generation + 1, updated_at=now)
    statement = statement.returning(Server).execution_options(synchronize_session=False, populate_existing=True)
    if session.scalar(statement) is None:
        session.refresh(server)
        if server.vm_state in action.allowed_from:
            state = f"task_state {server.task_state}"
        else:
            state = f"vm_state {server.vm_state}"
        raise errors.Conflict(f"Cannot '{action.name}' instance {server.id} while it is in {state}")
    check_host(server)
    operations.begin_action(session, now, server, recorded_as or action.name, request_id, caller.user_id)


def delete(session: Session, now: datetime, caller: Caller, server: Server, request_id: str) -> None:
    """End a server in whatever state it is. Gone when its host has removed it; at once when no host has it, or one
    that is down: that removes what it has of it when it comes back."""
    check_lock(caller, server)
    if server.task_state == TaskState.DELETING:
        return
    if server.host is None or not hosts.is_alive(session, now, server.host):
        operations.begin_action(session, now, server, DELETE.name, request_id, caller.user_id)
        operations.end_action(session, now, server.id, request_id)
        mark_deleted(session, now, server)
        return
    start_action(session, now, caller, server, DELETE, request_id)


def check_host(server: Server) -> None:
    """Nothing can be done to a server that is on no host: one that none had room for, or that is shelved."""
    if server.host is None:
        raise errors.Conflict(f"Instance {server.id} is not ready")


def check_lock(caller: Caller, server: Server) -> None:
    """A locked server is left alone by everybody but admins."""
    if server.locked and not caller.is_admin:
        raise errors.Conflict(f"Instance {server.id} is locked")


def find_usable_image(session: Session, caller: Caller, image_id: str, flavor: Flavor) -> Image:
    """An image that a server of the flavor can be made from. Raises BadRequest in Nova's words."""
    try:
        image = images.find_visible(session, caller, image_id)
    except errors.NotFound:
        raise errors.BadRequest(f"Can not find requested image: {image_id}") from None
    if image.status != "active":
        raise errors.BadRequest(f"Image {image.id} is not active.")
    if flavor.ram < (image.min_ram or 0):
        raise errors.BadRequest("Flavor's memory is too small for requested image.")
    if flavor.disk:
        have = flavor.disk << 30
        need = max((image.min_disk or 0) << 30, 0 if image.stored_format == "iso" else image.virtual_size or 0)
        if have < need:
            raise errors.BadRequest(
                f"Flavor's disk is too small for requested image. Flavor disk is {have} bytes, image is {need} bytes."
            )
    return image


def image_copy(image: Image) -> dict[str, Any]:
    """What a server remembers of its image."""
    return {
        "ref": image_reference(image),
        "name": image.name,
        "min_ram": image.min_ram,
        "min_disk": image.min_disk,
    }


def flavor_copy(flavor: Flavor) -> dict[str, Any]:
    """What a server remembers of its flavor: RAM and swap in MiB, disks in GiB."""
    return {
        "id": flavor.id,
        "name": flavor.name,
        "vcpus": flavor.vcpus,
        "ram": flavor.ram,
        "disk": flavor.disk,
        "ephemeral": flavor.ephemeral,
        "swap": flavor.swap,
        "extra_specs": flavor.extra_specs,
    }


def check_metadata_quota(session: Session, caller: Caller, metadata: dict[str, str]) -> None:
    """Not more items than the quota has."""
    _check_metadata_quota(quotas.limits(session, caller.project), metadata)


def _check_metadata_quota(limits: Mapping[str, int], metadata: Mapping[str, str]) -> None:
    limit = limits["metadata_items"]
    if 0 <= limit < len(metadata):
        raise errors.QuotaExceeded(
            f"Quota exceeded for metadata_items: maximum number of metadata items exceeds {limit}"
        )


def sanitize_hostname(name: str, server_id: str) -> str:
    """A host name made of a server's name, as Nova makes it: one label of RFC 1123, at most 63 characters."""
    made = re.sub(r"[^a-z0-9-]+", "", re.sub(r"[\s_.]", "-", name.lower())).strip("-")
    return made[:63].rstrip("-") or f"Server-{server_id}"


def host_id(server: Server) -> str:
    """What a project may know of its host: the same for two of its servers on one host, and nothing more."""
    if not server.host:
        return ""
    return hashlib.sha224(f"{server.project_id}{server.host}".encode()).hexdigest()


def _blank_disks(flavor: Flavor, new: NewServer) -> dict[str, Any]:
    """The blank disks that are asked for, in place of those that the flavor brings. Raises BadRequest."""
    chosen: dict[str, Any] = {}
    if new.ephemeral_gib:
        sizes = [size or flavor.ephemeral for size in new.ephemeral_gib]
        if sum(sizes) > flavor.ephemeral or min(sizes) < 1:
            raise errors.BadRequest(
                "Ephemeral disks requested are larger than the instance type allows. If no size is given in one block "
                "device mapping, flavor ephemeral size will be used."
            )
        chosen["ephemeral_gib"] = sizes
    if new.swap_mib:
        if len(new.swap_mib) > 1:
            raise errors.BadRequest("More than one swap drive requested.")
        if new.swap_mib[0] > flavor.swap:
            raise errors.BadRequest("Swap drive requested is larger than instance type allows.")
        chosen["swap_mib"] = new.swap_mib[0] or flavor.swap
    return {system_metadata.BLANK: chosen} if chosen else {}


def _find_flavor(session: Session, caller: Caller, flavor_id: str) -> Flavor:
    try:
        return flavors.find(session, caller, flavor_id)
    except errors.NotFound as error:
        raise errors.BadRequest(error.message) from None


def _find_key(session: Session, caller: Caller, name: str | None) -> KeyPair | None:
    if name is None:
        return None
    try:
        return keypairs.find(session, caller.user_id, name)
    except errors.NotFound:
        raise errors.BadRequest("Invalid key_name provided.") from None


def _find_networks(session: Session, caller: Caller, new: NewServer) -> list[tuple[Network | None, NetworkRequest]]:
    """The networks that each server is to be on; an existing port brings its own."""
    if new.networks == "none":
        return []
    if new.networks == "auto" or not new.networks:
        return [(networks.default_network(session, caller), NetworkRequest())]
    wanted: list[tuple[Network | None, NetworkRequest]] = []
    for request in new.networks:
        assert not isinstance(request, str)
        if request.port_id:
            if new.max_count > 1:
                raise errors.BadRequest("Unable to launch multiple instances with a single configured port ID.")
            wanted.append((None, request))
            continue
        if request.address and new.max_count > 1:
            raise errors.BadRequest("Unable to launch multiple instances with a single fixed IP address.")
        try:
            wanted.append((networks.find(session, caller, request.network_id or ""), request))
        except errors.NotFound as error:
            raise errors.BadRequest(error.message) from None
    return wanted


def _find_group(session: Session, caller: Caller, group_id: str | None) -> ServerGroup | None:
    if group_id is None:
        return None
    try:
        return server_groups.find(session, caller, group_id)
    except errors.NotFound as error:
        raise errors.BadRequest(error.message) from None


def _schedule(session: Session, now: datetime, server: Server) -> None:
    if scheduling.claim_host(session, now, server, server.pinned_zone) is None:
        mark_failed(server, now, scheduling.explain_no_host(session, now, server, server.pinned_zone))
        server.task_state = None


def _create_ports(
    session: Session,
    now: datetime,
    caller: Caller,
    server: Server,
    wanted: Sequence[tuple[Network | None, NetworkRequest]],
) -> None:
    owner = f"compute:{server.availability_zone or 'nova'}"
    for network, request in wanted:
        if network is None:
            assert request.port_id is not None
            try:
                port = ports.bind(session, now, request.port_id, caller, device_id=server.id, host=server.host)
            except errors.NotFound as error:
                raise errors.BadRequest(error.message) from None
        else:
            port = ports.create(
                session,
                now,
                project_id=server.project_id,
                network=network,
                device_id=server.id,
                device_owner=owner,
                host=server.host,
                address=request.address,
                chooser=caller,
            )
        system_metadata.tag_nic(server, port.id, request.tag)
        if not server.access_ipv6 and port.ip_address:
            server.access_ipv6 = port.ip_address

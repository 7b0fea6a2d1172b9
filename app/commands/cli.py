"""The `sixstack` command: up, down, agent, host, status, dns, keys, db, image."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from app.core.errors import OperatorError
from app.core.settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return the exit status. Problems for the operator are one line on stderr and status 1."""
    parsed = _parser().parse_args(arguments)
    try:
        return int(parsed.run(Settings.read(vars(parsed)), parsed))
    except OperatorError as error:
        print(f"sixstack: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        from app.db.database import error_reason, is_empty, is_unreachable

        if is_empty(error):
            print(
                "sixstack: the database contains no cloud: set SIXSTACK_DATABASE_URL to the value that `sixstack up` "
                "uses.",
                file=sys.stderr,
            )
            return 1
        if not is_unreachable(error):
            raise
        print(f"sixstack: the database cannot be reached: {error_reason(error)}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sixstack", description="A small cloud with OpenStack APIs.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    state = argparse.ArgumentParser(add_help=False)
    state.add_argument("--state", type=Path, help="state directory (default: ./var)")

    up = commands.add_parser("up", parents=[state], help="run the cloud in the foreground")
    up.add_argument("--listen", metavar="ADDRESS:PORT", help="address of the API (default: 127.0.0.1:8774)")
    up.add_argument(
        "--console-listen", metavar="ADDRESS:PORT", help="address of the console proxy (default: next port)"
    )
    up.add_argument("--console-url", metavar="URL", help="base of console URLs, when behind a reverse proxy")
    up.add_argument("--public-url", metavar="URL", help="base of API links (default: the request's Host header)")
    up.add_argument("--prefix", help="IPv6 prefix that networks get a /64 from (default: a random ULA /48)")
    up.add_argument("--uplink", help="network interface for VXLAN traffic (default: lo, this host only)")
    up.add_argument("--peers", metavar="A,B", help="underlay addresses of all hosts (without multicast)")
    up.add_argument("--isolate-guests", action="store_true", default=None, help="block traffic between guests")
    up.add_argument("--guests-reach-ports", metavar="A,B", help="TCP ports of the host that guests may reach")
    up.add_argument("--guests-reach-host", action="store_true", default=None, help="allow all ports of the host")
    up.add_argument("--forward", action="store_true", default=None, help="forward guests' packets to the uplink")
    up.add_argument("--nat64", action="store_true", default=None, help="IPv4 for guests (requires tayga, unbound)")
    up.add_argument("--accelerator", choices=["auto", "kvm", "tcg"], help="accelerator of qemu (default: auto)")
    up.add_argument("--database-url", metavar="URL", help="SQLAlchemy URL (default: SQLite in the state directory)")
    up.add_argument("--host-name", help="name of this host in hypervisor lists (default: its hostname)")
    up.add_argument("--region", help="region name in the catalog (default: RegionOne)")
    up.add_argument("--dns-servers", metavar="A,B", help="name servers of guests")
    up.add_argument("--dns-search", metavar="A,B", help="DNS search domains of guests")
    up.add_argument("--workers", type=int, help="API worker processes (default: 1)")
    up.add_argument("--no-agent", dest="agent", action="store_false", default=None, help="run no compute agent here")
    up.add_argument("--user", metavar="NAME", help="user of the API (default: an unused uid; root: keep root)")
    up.set_defaults(run=_up)

    down = commands.add_parser("down", parents=[state], help="stop the cloud; its guests keep running")
    down.add_argument("--servers", action="store_true", help="stop the guests as well; the next up starts them")
    down.set_defaults(run=_down)

    status = commands.add_parser("status", parents=[state], help="show the status; exit status 0 if the cloud is up")
    status.set_defaults(run=_status)

    agent = commands.add_parser("agent", parents=[state], help="run a compute agent for a remote control plane")
    agent.add_argument("what", nargs="?", choices=["run", "join", "down"], default="run", help="(default: run)")
    agent.add_argument("--servers", action="store_true", help="with down: stop the guests")
    agent.add_argument("--uplink", help="network interface for VXLAN traffic")
    agent.add_argument("--peers", metavar="A,B", help="underlay addresses of all hosts (without multicast)")
    agent.add_argument("--guests-reach-ports", metavar="A,B", help="TCP ports of the host that guests may reach")
    agent.add_argument("--guests-reach-host", action="store_true", default=None, help="allow all ports of the host")
    agent.add_argument("--forward", action="store_true", default=None, help="forward guests' packets to the uplink")
    agent.add_argument("--accelerator", choices=["auto", "kvm", "tcg"], help="accelerator of qemu (default: auto)")
    agent.set_defaults(run=_agent)

    host = commands.add_parser("host", help="manage remote compute hosts").add_subparsers(
        required=True, metavar="COMMAND"
    )
    add = host.add_parser("add", parents=[state], help="register a compute host; prints its credential")
    add.add_argument("name", help="name of the host in hypervisor lists")
    add.add_argument("--api-url", metavar="URL", help="URL of the API for the host (default: the public URL)")
    add.add_argument("--only-credential", action="store_true", help="print only the input of `agent join`")
    add.set_defaults(run=_host_command("add"))
    host.add_parser("list", parents=[state], help="list hosts").set_defaults(run=_host_command("show"))
    remove = host.add_parser("remove", parents=[state], help="deregister a host without servers")
    remove.add_argument("name")
    remove.add_argument("--force", action="store_true", help="the host is lost: set its servers to ERROR")
    remove.set_defaults(run=_host_command("remove"))

    dns = commands.add_parser("dns", help="DNS records of servers").add_subparsers(required=True, metavar="COMMAND")
    zone = dns.add_parser("show", parents=[state], help="print the records in zone file format")
    zone.set_defaults(run=_dns)
    sync = dns.add_parser("sync", parents=[state], help="update the name server (SIXSTACK_DNS_…)")
    sync.add_argument("--every", type=float, metavar="SECONDS", help="repeat at this interval (default: run once)")
    sync.set_defaults(run=_dns)

    keys = commands.add_parser("keys", help="manage token keys").add_subparsers(required=True, metavar="COMMAND")
    rotate = keys.add_parser("rotate", parents=[state], help="sign new tokens with a new key; existing stay valid")
    rotate.set_defaults(run=_rotate)

    db = commands.add_parser("db", help="copy or purge the database").add_subparsers(required=True, metavar="COMMAND")
    copy = db.add_parser("copy", parents=[state], help="copy all rows to another database, such as PostgreSQL")
    copy.add_argument("target", nargs="?", metavar="URL", help="SQLAlchemy URL of an empty database")
    copy.add_argument("--from", dest="from_url", metavar="URL", help="source (default: the database of --state)")
    copy.add_argument("--to", dest="to_url", metavar="URL", help="alternative to the argument URL")
    copy.set_defaults(run=_database_command("copy"))
    purge = db.add_parser("purge", parents=[state], help="delete the rows of servers deleted long ago")
    old = purge.add_mutually_exclusive_group(required=True)
    old.add_argument("--before", metavar="DATE", help="servers deleted before this day (UTC), such as 2026-08-31")
    old.add_argument("--days", type=float, metavar="N", help="servers deleted more than N days ago")
    purge.add_argument("--with-usage", action="store_true", help="delete their usage records as well")
    purge.add_argument("--dry-run", action="store_true", help="only count the rows")
    purge.set_defaults(run=_database_command("purge"))

    image = commands.add_parser("image", help="import images").add_subparsers(required=True, metavar="COMMAND")
    bring = image.add_parser("import", parents=[state], help="upload an image from a file or URL in any disk format")
    bring.add_argument("source", metavar="FILE-OR-URL", help="disk image, optionally compressed")
    bring.add_argument("--name", help="name of the image (default: the file name without extension)")
    bring.add_argument("--id", help="UUID of the image (default: random)")
    bring.add_argument("--disk-format", help="disk format (default: detected)")
    bring.add_argument("--property", action="append", metavar="NAME=VALUE", help="image property; may be repeated")
    bring.add_argument(
        "--cloud", default="sixstack-admin", help="owner, an entry of clouds.yaml (default: %(default)s)"
    )
    visibilities = ["public", "community", "shared", "private"]
    bring.add_argument("--visibility", choices=visibilities, default="public", help="visibility (default: public)")
    bring.set_defaults(run=_import_image)
    return parser


def _up(settings: Settings, _parsed: argparse.Namespace) -> int:
    from app import supervisor

    return supervisor.up(settings)


def _down(settings: Settings, parsed: argparse.Namespace) -> int:
    from app import supervisor

    return supervisor.down(settings, servers=parsed.servers)


def _agent(settings: Settings, parsed: argparse.Namespace) -> int:
    import compute_agent.remote as remote

    if parsed.what == "join":
        return remote.join(settings, sys.stdin)
    return remote.down(settings, servers=parsed.servers) if parsed.what == "down" else remote.run(settings)


def _host_command(name: str) -> Callable[[Settings, argparse.Namespace], int]:
    def run(settings: Settings, parsed: argparse.Namespace) -> int:
        from app.commands import hosts

        return int(getattr(hosts, name)(settings, parsed))

    return run


def _dns(settings: Settings, parsed: argparse.Namespace) -> int:
    from app.commands import dns as commands_dns

    return commands_dns.sync(settings, parsed.every) if "every" in parsed else commands_dns.show(settings)


def _status(settings: Settings, _parsed: argparse.Namespace) -> int:
    from app.commands import status

    return status.show(settings)


def _import_image(settings: Settings, parsed: argparse.Namespace) -> int:
    from app.commands import images

    return images.run(settings, parsed)


def _database_command(name: str) -> Callable[[Settings, argparse.Namespace], int]:
    def run(settings: Settings, parsed: argparse.Namespace) -> int:
        from app.commands import database

        return int(getattr(database, name)(settings, parsed))

    return run


def _rotate(settings: Settings, _parsed: argparse.Namespace) -> int:
    from app.security import keys

    keys.rotate(settings)
    print("New tokens are signed with a new key; existing tokens stay valid.")
    return 0

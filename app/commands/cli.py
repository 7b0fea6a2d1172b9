"""The `sixstack` command: up, down, agent, host, status, dns, keys, db, image."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from app.core.errors import OperatorError
from app.core.settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status. What a person must change is one line on stderr and status 1."""
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
                "sixstack: there is no cloud in this database: set SIXSTACK_DATABASE_URL as it is for `sixstack up`.",
                file=sys.stderr,
            )
            return 1
        if not is_unreachable(error):
            raise
        print(f"sixstack: the database cannot be reached: {error_reason(error)}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sixstack", description="A small cloud that speaks OpenStack.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    state = argparse.ArgumentParser(add_help=False)
    state.add_argument("--state", type=Path, help="where everything is kept (default: ./var)")

    up = commands.add_parser("up", parents=[state], help="start the cloud and stay in the foreground")
    up.add_argument("--listen", metavar="ADDRESS:PORT", help="where to answer (default: 127.0.0.1:8774)")
    up.add_argument("--console-listen", metavar="ADDRESS:PORT", help="where consoles are (default: the next port)")
    up.add_argument("--console-url", metavar="URL", help="what links to consoles start with, behind a proxy")
    up.add_argument("--public-url", metavar="URL", help="what links start with, behind a proxy (default: as asked)")
    up.add_argument("--prefix", help="IPv6 prefix that networks get a /64 from (default: a random ULA /48)")
    up.add_argument("--uplink", help="link that VXLAN packets leave by (default: lo, nothing leaves)")
    up.add_argument("--peers", metavar="A,B", help="addresses of all hosts, where the uplink has no multicast")
    up.add_argument("--isolate-guests", action="store_true", default=None, help="guests reach only their router")
    up.add_argument("--guests-reach-ports", metavar="A,B", help="TCP ports of the host that guests may reach")
    up.add_argument("--guests-reach-host", action="store_true", default=None, help="do not filter that")
    up.add_argument("--forward", action="store_true", default=None, help="pass guests' packets on to the uplink")
    up.add_argument("--nat64", action="store_true", default=None, help="let guests reach IPv4 (needs tayga, unbound)")
    up.add_argument("--accelerator", choices=["auto", "kvm", "tcg"], help="how guests run (default: auto)")
    up.add_argument("--database-url", metavar="URL", help="an SQLAlchemy URL (default: SQLite in the state directory)")
    up.add_argument("--host-name", help="name of this host in hypervisor lists (default: the machine's)")
    up.add_argument("--region", help="region name in the catalog (default: RegionOne)")
    up.add_argument("--dns-servers", metavar="A,B", help="name servers that guests are told")
    up.add_argument("--dns-search", metavar="A,B", help="search domains that guests are told")
    up.add_argument("--workers", type=int, help="API worker processes (default: 1)")
    up.add_argument("--no-agent", dest="agent", action="store_false", default=None, help="run no machines here")
    up.add_argument("--user", metavar="NAME", help="who the API runs as (default: a uid of its own; root: no change)")
    up.set_defaults(run=_up)

    down = commands.add_parser("down", parents=[state], help="end the cloud; its guests go on")
    down.add_argument("--servers", action="store_true", help="end the guests too; they start again with the next up")
    down.set_defaults(run=_down)

    status = commands.add_parser("status", parents=[state], help="what runs; exit status 0 when the cloud answers")
    status.set_defaults(run=_status)

    agent = commands.add_parser("agent", parents=[state], help="run machines for a cloud on another computer")
    agent.add_argument("what", nargs="?", choices=["run", "join", "down"], default="run", help="(default: run)")
    agent.add_argument("--servers", action="store_true", help="with down: end the guests")
    agent.add_argument("--uplink", help="link that VXLAN packets leave by")
    agent.add_argument("--peers", metavar="A,B", help="addresses of all hosts, where the uplink has no multicast")
    agent.add_argument("--guests-reach-ports", metavar="A,B", help="TCP ports of the host that guests may reach")
    agent.add_argument("--guests-reach-host", action="store_true", default=None, help="do not filter that")
    agent.add_argument("--forward", action="store_true", default=None, help="pass guests' packets on to the uplink")
    agent.add_argument("--accelerator", choices=["auto", "kvm", "tcg"], help="how guests run (default: auto)")
    agent.set_defaults(run=_agent)

    host = commands.add_parser("host", help="hosts on other computers").add_subparsers(required=True, metavar="COMMAND")
    add = host.add_parser("add", parents=[state], help="let a host come, and print what to run there")
    add.add_argument("name", help="what the host is called in hypervisor lists")
    add.add_argument("--api-url", metavar="URL", help="where it finds the API (default: the public URL)")
    add.add_argument("--only-credential", action="store_true", help="print only the line that `agent join` reads")
    add.set_defaults(run=_host_command("add"))
    host.add_parser("list", parents=[state], help="every host").set_defaults(run=_host_command("show"))
    remove = host.add_parser("remove", parents=[state], help="forget a host that has no servers")
    remove.add_argument("name")
    remove.add_argument("--force", action="store_true", help="it is lost for good: give up the servers that it has")
    remove.set_defaults(run=_host_command("remove"))

    dns = commands.add_parser("dns", help="names of servers").add_subparsers(required=True, metavar="COMMAND")
    zone = dns.add_parser("show", parents=[state], help="print the records, for a zone file")
    zone.set_defaults(run=_dns)
    sync = dns.add_parser("sync", parents=[state], help="keep them on a name server (SIXSTACK_DNS_…)")
    sync.add_argument("--every", type=float, metavar="SECONDS", help="for ever (default: once)")
    sync.set_defaults(run=_dns)

    keys = commands.add_parser("keys", help="token keys").add_subparsers(required=True, metavar="COMMAND")
    rotate = keys.add_parser("rotate", parents=[state], help="sign new tokens with a new key; live ones stay valid")
    rotate.set_defaults(run=_rotate)

    db = commands.add_parser("db", help="the database").add_subparsers(required=True, metavar="COMMAND")
    copy = db.add_parser("copy", parents=[state], help="take everything to another database, such as PostgreSQL")
    copy.add_argument("target", nargs="?", metavar="URL", help="an SQLAlchemy URL of an empty database")
    copy.add_argument("--from", dest="from_url", metavar="URL", help="what to copy (default: the cloud's in --state)")
    copy.add_argument("--to", dest="to_url", metavar="URL", help="the same as URL")
    copy.set_defaults(run=_database_command("copy"))
    purge = db.add_parser("purge", parents=[state], help="remove what is left of servers deleted long ago")
    old = purge.add_mutually_exclusive_group(required=True)
    old.add_argument("--before", metavar="DATE", help="those deleted before this day, such as 2026-08-31 (UTC)")
    old.add_argument("--days", type=float, metavar="N", help="those deleted more than so many days ago")
    purge.add_argument("--with-usage", action="store_true", help="let usage reports forget them, too")
    purge.add_argument("--dry-run", action="store_true", help="only count them")
    purge.set_defaults(run=_database_command("purge"))

    image = commands.add_parser("image", help="images").add_subparsers(required=True, metavar="COMMAND")
    bring = image.add_parser("import", parents=[state], help="upload a file or a URL, whatever format it is in")
    bring.add_argument("source", metavar="FILE-OR-URL", help="a disk image, compressed or not")
    bring.add_argument("--name", help="name of the image (default: the file's, without its ending)")
    bring.add_argument("--id", help="UUID of the image (default: a random one)")
    bring.add_argument("--disk-format", help="what it is (default: found out)")
    bring.add_argument("--property", action="append", metavar="NAME=VALUE", help="a property; may be repeated")
    bring.add_argument("--cloud", default="sixstack-admin", help="whose it is, in clouds.yaml (default: %(default)s)")
    visibilities = ["public", "community", "shared", "private"]
    bring.add_argument("--visibility", choices=visibilities, default="public", help="who sees it (default: public)")
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
    print("New tokens are signed with a new key; tokens that are out stay valid.")
    return 0

"""PostgreSQL server for tests: in a temporary directory, on a Unix socket, removed afterwards."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

USER = "postgres"
QUICK = "-c fsync=off -c full_page_writes=off -c synchronous_commit=off"


def why_not() -> str | None:
    """Return the reason why PostgreSQL cannot be started here, or None."""
    if os.geteuid() != 0:
        return "PostgreSQL is started as another user, which needs root"
    if not _programs():
        return "PostgreSQL is not installed: apt install postgresql"
    return None


@dataclass(frozen=True)
class Postgres:
    """A running server with one database; `reset` restores the rows that `take_snapshot` saved."""

    directory: Path
    options: str = ""

    def start(self) -> None:
        """Start the server; returns once it accepts connections."""
        log = str(self.directory / "log")
        options = f"-k {self.directory} -c listen_addresses='' -c max_connections=200 {self.options}"
        subprocess.run([*self._control, "-w", "-s", "-l", log, "-o", options, "start"], check=True, cwd="/")

    def stop(self, how: str = "fast") -> None:
        """Stop the server and close all connections; `how` is a mode of pg_ctl, immediate may lose commits."""
        subprocess.run([*self._control, "-w", "-s", "-m", how, "stop"], check=True, cwd="/")

    @property
    def _control(self) -> list[str]:
        programs = _programs()
        assert programs is not None
        return ["runuser", "-u", USER, "--", str(programs / "pg_ctl"), "-D", str(self.directory / "data")]

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of the database."""
        return f"postgresql+psycopg://{USER}@/postgres?host={self.directory}"

    def take_snapshot(self) -> None:
        """Save a copy of all tables and sequences."""
        with self._connect() as connection:
            connection.execute("CREATE SCHEMA remembered")
            for table in _names(connection, "pg_tables", "tablename"):
                connection.execute(f'CREATE TABLE remembered."{table}" AS TABLE public."{table}"'.encode())
            connection.execute("CREATE TABLE remembered.the_sequences (name text, at bigint)")
            for sequence in _names(connection, "pg_sequences", "sequencename"):
                keep = (
                    f"INSERT INTO remembered.the_sequences SELECT '{sequence}', last_value FROM public.\"{sequence}\""
                )
                connection.execute(keep.encode())

    def reset(self) -> None:
        """Restore the copy; closes all other connections first."""
        with self._connect() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            connection.execute("SET session_replication_role = replica")
            statements = [
                f'DELETE FROM public."{table}"; INSERT INTO public."{table}" SELECT * FROM remembered."{table}"'
                for table in _names(connection, "pg_tables", "tablename")
            ]
            statements.append("SELECT setval('public.' || quote_ident(name), at) FROM remembered.the_sequences")
            connection.execute("; ".join(statements).encode())

    def _connect(self) -> psycopg.Connection[tuple[str, ...]]:
        return psycopg.connect(f"user={USER} dbname=postgres host={self.directory}")


def _names(connection: psycopg.Connection[tuple[str, ...]], catalog: str, column: str) -> list[str]:
    rows = connection.execute(f"SELECT {column} FROM {catalog} WHERE schemaname = 'public'".encode())
    return [name for (name,) in rows]


@contextmanager
def postgres(directory: Path, options: str = QUICK) -> Iterator[Postgres]:
    """Start a server in the directory, whose path must be short enough for a socket name.

    The default options disable fsync.
    """
    directory.mkdir(exist_ok=True)
    shutil.chown(directory, USER, USER)
    made = Postgres(directory, options)
    initial = f"--auth=trust --username={USER} --no-sync"
    subprocess.run([*made._control, "-o", initial, "initdb", "-s"], check=True, cwd="/")
    made.start()
    try:
        yield made
    finally:
        made.stop("immediate")


def _programs() -> Path | None:
    """Return the program directory of the newest installed PostgreSQL."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None

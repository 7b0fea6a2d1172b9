"""A RabbitMQ server for tests: temporary directory, own address and ports."""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

USER = "rabbitmq"
SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
START_SECONDS = 120.0


def why_not() -> str | None:
    """Return why RabbitMQ cannot be started here, or None."""
    if os.geteuid() != 0:
        return "RabbitMQ is started as another user, which needs root"
    if not SERVER.exists() or shutil.which("epmd") is None:
        return "RabbitMQ is not installed: apt install rabbitmq-server"
    return None


@dataclass
class RabbitMQ:
    """A broker with its management API. Tests may stop and restart it; durable data is kept."""

    directory: Path
    address: str
    tls: tuple[Path, Path, Path] | None = None  # authority, certificate, key
    password: str = field(default_factory=lambda: secrets.token_hex(16))
    ports: tuple[int, int, int, int] = field(default_factory=lambda: _free_ports(4))
    process: subprocess.Popen[bytes] | None = None
    mapper: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return the URL for the control plane."""
        return f"{'amqps' if self.tls else 'amqp'}://sixstack:{self.password}@{self._host}:{self.ports[0]}//"

    @property
    def management_url(self) -> str:
        """Return the URL of the management API with credentials."""
        return f"http://sixstack:{self.password}@{self._host}:{self.ports[1]}"

    def start(self) -> None:
        """Wait until the broker accepts connections."""
        host = self.address
        lines = [
            f"listeners.tcp.1 = {host}:{self.ports[0]}" if not self.tls else "listeners.tcp = none",
            f"management.tcp.ip = {host}",
            f"management.tcp.port = {self.ports[1]}",
            "default_user = sixstack",
            f"default_pass = {self.password}",
            "loopback_users = none",
            "max_message_size = 16777216",
        ]
        if self.tls:
            authority, certificate, key = self.tls
            lines += [
                f"listeners.ssl.1 = {host}:{self.ports[0]}",
                f"ssl_options.cacertfile = {authority}",
                f"ssl_options.certfile = {certificate}",
                f"ssl_options.keyfile = {key}",
            ]
        (self.directory / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        (self.directory / "plugins").write_text("[rabbitmq_management].\n")
        for path in (self.directory, *self.directory.iterdir()):
            shutil.chown(path, USER, USER)
        environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.directory),
            "ERL_EPMD_PORT": str(self.ports[3]),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"test{self.ports[0]}@localhost",
            "RABBITMQ_DIST_PORT": str(self.ports[2]),
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "data"),
            "RABBITMQ_LOG_BASE": str(self.directory / "log"),
            "RABBITMQ_PID_FILE": str(self.directory / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
            "RABBITMQ_SERVER_START_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }
        with (self.directory / "output").open("ab") as output:
            quiet = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output, "cwd": "/", "env": environment}
            drop = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
            self.mapper = subprocess.Popen([*drop, "epmd"], **quiet)
            self.process = subprocess.Popen([*drop, str(SERVER)], **quiet)
        until = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > until:
                said = (self.directory / "output").read_text()[-3000:]
                self.stop()
                raise AssertionError(f"RabbitMQ did not start:\n{said}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop the broker; durable data stays in the directory."""
        pid_file = self.directory / "pid"
        if self.process is not None:
            with suppress(OSError, ValueError):
                os.kill(int(pid_file.read_text()), 15)
            self.process.terminate()
            self.process.wait(60)
        if self.mapper is not None:
            self.mapper.terminate()
            self.mapper.wait(10)
        self.process = self.mapper = None

    @property
    def _host(self) -> str:
        return f"[{self.address}]" if ":" in self.address else self.address

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self._host}:{self.ports[1]}/", timeout=2):
                pass
            with socket.create_connection((self.address, self.ports[0]), 2):
                return True
        except (urllib.error.URLError, OSError):
            return False


@contextmanager
def place() -> Iterator[Path]:
    """Yield a temporary directory that unprivileged users may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="sixstack-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@contextmanager
def rabbitmq(
    directory: Path, address: str = "127.0.0.1", tls: tuple[Path, Path, Path] | None = None
) -> Iterator[RabbitMQ]:
    """Start a broker in the directory and stop it afterwards."""
    directory.mkdir(exist_ok=True)
    made = RabbitMQ(directory, address, tls)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def _free_ports(count: int) -> tuple[int, int, int, int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        one, two, three, four = (probe.getsockname()[1] for probe in probes)
        return one, two, three, four
    finally:
        for probe in probes:
            probe.close()


def certificates(directory: Path) -> tuple[Path, Path, Path]:
    """Create a certificate authority and a certificate of 127.0.0.1 that RabbitMQ may read."""
    from datetime import UTC, datetime, timedelta
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    now = datetime.now(UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    issuer, subject = (x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in ("test", "broker"))

    def certificate(name: x509.Name, number: int, extension: x509.ExtensionType) -> bytes:
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(keys[number].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(extension, critical=True)
            .sign(keys[0], hashes.SHA256())
        )
        return made.public_bytes(serialization.Encoding.PEM)

    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    texts = {
        "authority.pem": certificate(issuer, 0, x509.BasicConstraints(ca=True, path_length=0)),
        "broker.pem": certificate(subject, 1, x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])),
        "key.pem": keys[1].private_bytes(*form),
    }
    for name, text in texts.items():
        (directory / name).write_bytes(text)
        shutil.chown(directory / name, USER, USER)
    return directory / "authority.pem", directory / "broker.pem", directory / "key.pem"

"""Credential file of a remote host: printed once by `sixstack host add`, kept in a file that only root can read."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from app.core.errors import OperatorError
from app.core.installation import Installation

FILE = "host.json"


@dataclass(frozen=True, slots=True)
class HostCredential:
    """Host name and secret, addresses of broker and API, and the installation's settings.

    `authority` is the PEM text of the certificate authority that signed the broker's certificate.
    """

    name: str
    secret: str
    broker_url: str
    api_url: str
    installation: Installation
    authority: str | None = None

    def document(self) -> str:
        """Return one line of JSON."""
        return json.dumps(asdict(self))


def parse(text: str) -> HostCredential:
    """Parse the output of `sixstack host add`. Raises OperatorError for anything else."""
    try:
        document = json.loads(text)
        return HostCredential(**{**document, "installation": Installation(**document["installation"])})
    except (ValueError, TypeError, KeyError):
        raise OperatorError(
            "This is not the output of `sixstack host add`. Run the command again and paste its complete output."
        ) from None


def save(state: Path, credential: HostCredential) -> None:
    """Write the credential and the files derived from it to the state directory."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    state.chmod(0o700)
    _write(state / FILE, credential.document())
    _write(state / "installation.json", json.dumps(asdict(credential.installation), indent=2))
    if credential.authority:
        _write(authority_file(state), credential.authority)


def load(state: Path) -> HostCredential:
    """Read the credential. Raises OperatorError when this host has not joined."""
    try:
        return parse((state / FILE).read_text())
    except FileNotFoundError:
        raise OperatorError(
            f"This host has not joined a cloud: {state / FILE} is missing. Run `sixstack host add NAME` where the API "
            "runs, and then the command that it prints on this host."
        ) from None


def authority_file(state: Path) -> Path:
    """Return the path of the certificate authority's file."""
    return state / "broker-authority.pem"


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text + "\n")
    temporary.rename(path)

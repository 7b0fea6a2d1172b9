"""What a host on another computer is given once, by `sixstack host add`, and keeps in a file that only root reads."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from app.core.errors import OperatorError
from app.core.installation import Installation

FILE = "host.json"


@dataclass(frozen=True, slots=True)
class HostCredential:
    """Who the host is, where the broker and the API are, and what is the same for all hosts of one installation.

    `authority` is the text of the certificate authority that the broker's certificate is from.
    """

    name: str
    secret: str
    broker_url: str
    api_url: str
    installation: Installation
    authority: str | None = None

    def document(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))


def parse(text: str) -> HostCredential:
    """Raises OperatorError for anything else than what `sixstack host add` printed."""
    try:
        document = json.loads(text)
        return HostCredential(**{**document, "installation": Installation(**document["installation"])})
    except (ValueError, TypeError, KeyError):
        raise OperatorError(
            "This is not what `sixstack host add` printed. Run that again and paste it whole."
        ) from None


def save(state: Path, credential: HostCredential) -> None:
    """Put it, and what follows from it, into the state directory of the host."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    state.chmod(0o700)
    _write(state / FILE, credential.document())
    _write(state / "installation.json", json.dumps(asdict(credential.installation), indent=2))
    if credential.authority:
        _write(authority_file(state), credential.authority)


def load(state: Path) -> HostCredential:
    """What was kept. Raises OperatorError when this host has not joined."""
    try:
        return parse((state / FILE).read_text())
    except FileNotFoundError:
        raise OperatorError(
            f"This host has not joined a cloud: {state / FILE} is missing. Run `sixstack host add NAME` where the API "
            "runs, and here what it prints."
        ) from None


def authority_file(state: Path) -> Path:
    """Where the certificate authority's text is kept."""
    return state / "broker-authority.pem"


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text + "\n")
    temporary.rename(path)

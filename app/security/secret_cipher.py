"""Encryption of secrets stored in the database, with keys in `state/keys/credential`."""

from datetime import datetime
from pathlib import Path

from app.core.settings import Settings
from app.security import keys


class SecretCipher:
    """Encrypts and decrypts texts. The keys are never rotated."""

    def __init__(self, settings: Settings) -> None:
        self._keys = keys.KeyRing(directory(settings))

    def encrypt(self, text: str, now: datetime) -> str:
        """Encrypt the text."""
        return self._keys.encrypt(text.encode(), int(now.timestamp())).decode()

    def decrypt(self, sealed: str) -> str:
        """Decrypt the text. Raises InvalidToken unless it was encrypted with these keys."""
        return self._keys.decrypt(sealed.encode()).decode()


def directory(settings: Settings) -> Path:
    """Return the directory of the keys."""
    return settings.state / "keys" / "credential"

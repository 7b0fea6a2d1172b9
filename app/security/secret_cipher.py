"""Seals secrets that the database keeps, with keys in `state/keys/credential`: its rows alone disclose none."""

from datetime import datetime
from pathlib import Path

from app.core.settings import Settings
from app.security import keys


class SecretCipher:
    """Encrypts and decrypts texts. The keys lie beside those of tokens and never rotate."""

    def __init__(self, settings: Settings) -> None:
        self._keys = keys.KeyRing(directory(settings))

    def encrypt(self, text: str, now: datetime) -> str:
        """The text, encrypted."""
        return self._keys.encrypt(text.encode(), int(now.timestamp())).decode()

    def decrypt(self, sealed: str) -> str:
        """The decrypted text. Raises InvalidToken unless it was sealed with these keys."""
        return self._keys.decrypt(sealed.encode()).decode()


def directory(settings: Settings) -> Path:
    """Where the keys are."""
    return settings.state / "keys" / "credential"

"""Proof that a host has its secret, bound to a message: HMAC-SHA-256 keyed by the secret's hash."""

import hashlib
import hmac


def prove(secret: str, message: str) -> str:
    """Return a proof that its sender has the secret, valid for this message only; it does not reveal the secret."""
    return prove_with_hash(hash_secret(secret), message)


def prove_with_hash(secret_hash: str, message: str) -> str:
    return hmac.new(secret_hash.encode(), message.encode(), hashlib.sha256).hexdigest()


def hash_secret(secret: str) -> str:
    # The secret has 256 random bits, so a slow hash adds nothing.
    return hashlib.sha256(secret.encode()).hexdigest()

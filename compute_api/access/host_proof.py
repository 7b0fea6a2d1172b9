"""Proof that a host has its secret, bound to a message: HMAC-SHA-256 keyed by the secret's hash."""

import hashlib
import hmac


def prove(secret: str, words: str) -> str:
    """What shows that somebody has the secret and says just these words, and gives neither away the secret nor
    anything for other words."""
    return prove_with_hash(hash_secret(secret), words)


def prove_with_hash(secret_hash: str, words: str) -> str:
    return hmac.new(secret_hash.encode(), words.encode(), hashlib.sha256).hexdigest()


def hash_secret(secret: str) -> str:
    # Random and 256 bits long: nothing that a slow hash would make safer.
    return hashlib.sha256(secret.encode()).hexdigest()

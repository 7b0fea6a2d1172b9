"""Key pairs: public keys of users, generation and fingerprints. Private keys are returned once and never stored."""

import base64
import binascii
import hashlib
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_public_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core import errors
from compute_api import quotas
from compute_api.models import KeyPair


def find(session: Session, user_id: str, name: str) -> KeyPair:
    """Return the user's key pair with this name. Raises NotFound."""
    query = select(KeyPair).where(KeyPair.user_id == user_id, KeyPair.name == name)
    if (key := session.scalar(query)) is None:
        raise errors.NotFound(f"Keypair {name} not found for user {user_id}")
    return key


def list_keypairs(session: Session, user_id: str, *, limit: int, marker: str | None) -> list[KeyPair]:
    """List the user's key pairs by name, from after `marker`, a name. Raises BadRequest for an unknown marker."""
    query = select(KeyPair).where(KeyPair.user_id == user_id).order_by(KeyPair.name).limit(limit)
    if marker is not None:
        find_marker = select(KeyPair.id).where(KeyPair.user_id == user_id, KeyPair.name == marker)
        if session.scalar(find_marker) is None:
            raise errors.BadRequest(f"marker [{marker}] not found")
        query = query.where(KeyPair.name > marker)
    return list(session.scalars(query))


def create(
    session: Session, now: datetime, *, user_id: str, project_id: str, name: str, kind: str, public_key: str
) -> KeyPair:
    """Store a public key. Raises Conflict when the name exists, QuotaExceeded, BadRequest for an invalid key."""
    count = session.scalar(select(func.count()).where(KeyPair.user_id == user_id)) or 0
    limits = quotas.limits(session, project_id) | quotas.user_limits(session, project_id, user_id)
    limit = limits["key_pairs"]
    if count >= limit >= 0:
        raise errors.QuotaExceeded("Quota exceeded, too many key pairs.")
    key = KeyPair(
        user_id=user_id,
        name=name,
        type=kind,
        public_key=public_key,
        fingerprint=certificate_fingerprint(public_key) if kind == "x509" else fingerprint(public_key),
        created_at=now,
    )
    session.add(key)
    try:
        session.flush()
    except IntegrityError:
        raise errors.Conflict(f"Key pair '{name}' already exists.") from None
    return key


def delete(session: Session, user_id: str, name: str) -> None:
    """Delete the key pair. Servers keep their copy of it. Raises NotFound."""
    session.delete(find(session, user_id, name))


def generate(comment: str) -> tuple[str, str]:
    """Generate an Ed25519 key pair: (private key in OpenSSH format, public key line)."""
    private = ed25519.Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode(), f"{public} {comment}"


def generate_certificate(user_id: str, now: datetime) -> tuple[str, str]:
    """Generate an RSA key and a self-signed client certificate for ten years: (private key PEM, certificate PEM).

    The subject alternative name is the user principal name that Windows guests map to a local account.
    """
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, user_id)])
    login = x509.OtherName(ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), _utf8(f"{user_id}@localhost"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([login]), critical=False)
        .sign(private, hashes.SHA256())
    )
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem.decode(), certificate.public_bytes(Encoding.PEM).decode()


def _utf8(text: str) -> bytes:
    """Encode the text as a DER UTF8String with a one-byte length, cut to 127 bytes."""
    encoded = text.encode()[:127]
    return bytes([0x0C, len(encoded)]) + encoded


def certificate_fingerprint(pem: str) -> str:
    """SHA-1 of the certificate in colon-separated hex, as in Nova. Raises BadRequest for an invalid certificate."""
    try:
        digest = x509.load_pem_x509_certificate(pem.encode()).fingerprint(hashes.SHA1()).hex()  # noqa: S303
    except ValueError:
        raise errors.BadRequest("Keypair data is invalid: failed to generate X509 fingerprint.") from None
    return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))


def fingerprint(public_key: str) -> str:
    """MD5 of the key's bytes in colon-separated hex, as in Nova. Raises BadRequest for an invalid SSH public key."""
    words = public_key.split()
    try:
        blob = base64.b64decode(words[1], validate=True)
        load_ssh_public_key(" ".join(words[:2]).encode())
    except (IndexError, ValueError, binascii.Error, UnsupportedAlgorithm) as error:
        if not isinstance(error, UnsupportedAlgorithm):
            raise errors.BadRequest("Keypair data is invalid: failed to generate fingerprint") from None
    digest = hashlib.md5(blob, usedforsecurity=False).hexdigest()
    return ":".join(digest[at : at + 2] for at in range(0, 32, 2))

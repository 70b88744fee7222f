"""The certificate of the admission webhook: made, read and renewed. No I/O here; where it is kept is in `server`.

An authority of our own signs it, so that the certificate can change often while the API server trusts the same one.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["Bundle", "make_bundle", "read_bundle", "renewed"]

_AUTHORITY_LIFE, _AUTHORITY_LEFT = timedelta(days=3650), timedelta(days=180)
_LIFE, _LEFT = timedelta(days=90), timedelta(days=30)
_SKEW = timedelta(hours=1)  # clocks of other machines
_BEGIN = b"-----BEGIN CERTIFICATE-----"

Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Bundle:
    """The contents of the webhook's Secret, as PEM.

    Attributes:
        certificate: tls.crt: the certificate, then the authority's.
        key: tls.key.
        authorities: ca.crt: certificates that the API server is to trust; two while one authority replaces another.
        authority_key: ca.key; empty where somebody else makes and renews the certificate.
    """

    certificate: bytes
    key: bytes
    authorities: bytes
    authority_key: bytes = b""

    def to_data(self) -> dict[str, str]:
        """Returns the data of a Secret."""
        parts = {
            "tls.crt": self.certificate,
            "tls.key": self.key,
            "ca.crt": self.authorities,
            "ca.key": self.authority_key,
        }
        return {name: base64.b64encode(part).decode() for name, part in parts.items() if part}


def read_bundle(data: Mapping[str, str]) -> Bundle | None:
    """Returns the bundle in the data of a Secret; None where there is no usable certificate with its key."""
    try:
        parts = [
            base64.b64decode(data.get(name) or "", validate=True) for name in ("tls.crt", "tls.key", "ca.crt", "ca.key")
        ]
        bundle = Bundle(*parts)
        leaf = x509.load_pem_x509_certificate(bundle.certificate)
        key = serialization.load_pem_private_key(bundle.key, password=None)  # of any kind, since it can be the user's
        if bundle.authority_key:
            x509.load_pem_x509_certificates(bundle.authorities)
            _key(bundle.authority_key)
    except (ValueError, TypeError):
        return None
    return bundle if leaf.public_key() == key.public_key() else None


def make_bundle(hosts: Sequence[str], now: datetime) -> Bundle:
    """Returns a new authority and a certificate that it signed for DNS names."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kaito webhook authority")])
    authority = (
        _builder(name, name, key, now, _AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return _issue(hosts, now, _pem(authority), key)


def renewed(bundle: Bundle, hosts: Sequence[str], now: datetime) -> Bundle | None:
    """Returns the successor of a bundle that expires soon or names other hosts; None where it can stay.

    A new authority is trusted beside the old one until the next renewal: other replicas use certificates of the old one
    until they have read the new.
    """
    if not bundle.authority_key:
        return None
    authority = x509.load_pem_x509_certificate(bundle.authorities)
    if authority.not_valid_after_utc - now < _AUTHORITY_LEFT:
        fresh = make_bundle(hosts, now)
        return Bundle(fresh.certificate, fresh.key, fresh.authorities + _first(bundle.authorities), fresh.authority_key)
    leaf = x509.load_pem_x509_certificate(bundle.certificate)
    if _names(leaf) == set(hosts) and leaf.not_valid_after_utc - now >= _LEFT:
        return None
    return _issue(hosts, now, _first(bundle.authorities), _key(bundle.authority_key))


def _names(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return set(names.get_values_for_type(x509.DNSName))


def _issue(hosts: Sequence[str], now: datetime, authority: bytes, authority_key: Key) -> Bundle:
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.load_pem_x509_certificate(authority)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kaito webhook")])
    certificate = (
        _builder(name, issuer.subject, key, now, _LIFE)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    return Bundle(_pem(certificate) + authority, _private(key), authority, _private(authority_key))


def _builder(name: x509.Name, issuer: x509.Name, key: Key, now: datetime, life: timedelta) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key(pem: bytes) -> Key:
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("ca.key must be an elliptic curve key, as the operator makes them")
    return key


def _first(pem: bytes) -> bytes:
    """Returns the first of several certificates, which is the newest authority's."""
    return _BEGIN + pem.split(_BEGIN)[1]


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )

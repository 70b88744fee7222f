"""The webhook's certificate: who trusts it, when it is renewed, what happens to the authority."""

from __future__ import annotations

import base64
import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import verification

from kaito_core.controller.webhook.certificates import Bundle, make_bundle, read_bundle, renewed

NOW = datetime(2026, 11, 23, tzinfo=UTC)
HOSTS = ("kaito-webhook.kaito-system.svc", "kaito-webhook.kaito-system")


def is_trusted(shown: Bundle, by: Bundle, at: datetime, host: str = HOSTS[0]) -> bool:
    """Whether a client that trusts the authorities of one bundle accepts the certificate of another."""
    store = verification.Store(x509.load_pem_x509_certificates(by.authorities))
    verifier = verification.PolicyBuilder().store(store).time(at).build_server_verifier(x509.DNSName(host))
    leaf, *chain = x509.load_pem_x509_certificates(shown.certificate)
    try:
        verifier.verify(leaf, chain)
    except verification.VerificationError:
        return False
    return True


def authorities(bundle: Bundle) -> int:
    return len(x509.load_pem_x509_certificates(bundle.authorities))


def test_a_new_certificate_is_trusted_under_its_names_alone() -> None:
    bundle = make_bundle(HOSTS, NOW)
    assert all(is_trusted(bundle, bundle, NOW, host) for host in HOSTS)
    assert not is_trusted(bundle, bundle, NOW, "other.example")
    assert not is_trusted(bundle, make_bundle(HOSTS, NOW), NOW), "every authority has a key of its own"


def test_a_clock_that_is_behind_does_no_harm() -> None:
    bundle = make_bundle(HOSTS, NOW)
    assert is_trusted(bundle, bundle, NOW - timedelta(minutes=30))


@pytest.mark.parametrize(("days", "due"), [(0, False), (59, False), (61, True), (89, True), (400, True)])
def test_it_is_renewed_before_it_ends(days: int, due: bool) -> None:
    bundle, later = make_bundle(HOSTS, NOW), NOW + timedelta(days=days)
    fresh = renewed(bundle, HOSTS, later)
    assert (fresh is not None) == due
    if fresh is not None:
        assert fresh.certificate != bundle.certificate and fresh.key != bundle.key
        assert fresh.authorities == bundle.authorities, "what the API server trusts stays"
        assert is_trusted(fresh, bundle, later)
        assert renewed(fresh, HOSTS, later) is None


def test_other_names_are_a_reason_to_renew() -> None:
    bundle, others = make_bundle(HOSTS, NOW), ("kaito-webhook.elsewhere.svc",)
    fresh = renewed(bundle, others, NOW)
    assert fresh is not None
    assert is_trusted(fresh, bundle, NOW, others[0])


def test_a_certificate_of_ours_that_names_no_host_is_renewed() -> None:
    whole = make_bundle(HOSTS, NOW)
    issuer = x509.load_pem_x509_certificate(whole.authorities)
    key = serialization.load_pem_private_key(whole.authority_key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    leaf_key = ec.generate_private_key(ec.SECP256R1())
    leaf = (
        x509.CertificateBuilder()
        .subject_name(issuer.subject)
        .issuer_name(issuer.subject)
        .public_key(leaf_key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=80))
        .sign(key, hashes.SHA256())
    )
    pem = leaf.public_bytes(serialization.Encoding.PEM)
    fresh = renewed(dataclasses.replace(whole, certificate=pem), HOSTS, NOW)
    assert fresh is not None and is_trusted(fresh, whole, NOW)


def test_a_new_authority_is_trusted_beside_the_old_one_for_a_while() -> None:
    old = make_bundle(HOSTS, NOW)
    late = NOW + timedelta(days=3650 - 100)
    still = renewed(old, HOSTS, NOW + timedelta(days=3650 - 200))
    assert still is not None and authorities(still) == 1
    fresh = renewed(still, HOSTS, late)
    assert fresh is not None and authorities(fresh) == 2
    assert is_trusted(fresh, fresh, late) and is_trusted(still, fresh, NOW + timedelta(days=3650 - 195))
    last = renewed(fresh, HOSTS, late + timedelta(days=70))
    assert last is not None and authorities(last) == 1
    assert is_trusted(last, fresh, late + timedelta(days=70))


def test_it_goes_through_a_secret_and_back() -> None:
    bundle = make_bundle(HOSTS, NOW)
    assert read_bundle(bundle.to_data()) == bundle


def test_a_certificate_of_somebody_else_is_read_and_never_renewed() -> None:
    data = {name: part for name, part in make_bundle(HOSTS, NOW).to_data().items() if name != "ca.key"}
    bundle = read_bundle(data)
    assert bundle is not None
    assert renewed(bundle, HOSTS, NOW + timedelta(days=4000)) is None


def changed(**parts: str) -> dict[str, str]:
    names = {name.replace("_", "."): value for name, value in parts.items()}
    return {**make_bundle(HOSTS, NOW).to_data(), **names}


@pytest.mark.parametrize(
    "data",
    [
        {},
        changed(tls_crt=""),
        changed(tls_key=base64.b64encode(b"no key").decode()),
        changed(tls_key="%%%"),
        changed(tls_key=make_bundle(HOSTS, NOW).to_data()["tls.key"]),
        changed(ca_key=base64.b64encode(b"no key").decode()),
        changed(ca_crt=""),
    ],
    ids=["nothing", "no certificate", "no key", "no base64", "another's key", "spoilt authority", "no authority"],
)
def test_what_cannot_be_used_is_not_taken(data: dict[str, str]) -> None:
    assert read_bundle(data) is None

"""Keys and X.509 certificates (ECDSA P-256) of a cluster's authority and nodes, and whether one is to be believed."""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from finllm.errors import InputError
from finllm.scheduler.cluster import Refused

NAME = re.compile(r"^[a-z0-9][a-z0-9-]{0,62}$")
"""What a node may be called: also a DNS label, and part of its backends' names."""
EARLY = dt.timedelta(minutes=5)
"""A certificate holds from so long before it was made, for clocks that go a little slow."""
CA_DAYS = 3650
CRL_DAYS = 3650
"""A list of revoked certificates is replaced when one is revoked; an old one must not stop the cluster."""
_TIME = "%Y-%m-%d %H:%MZ"
_ECDSA = ec.ECDSA(hashes.SHA256())


@dataclass(frozen=True)
class Holder:
    """A certificate that was believed. `until`: when it ends. `public`: the key that its holder signs with."""

    name: str
    serial: int
    until: dt.datetime
    public: ec.EllipticCurvePublicKey


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Errors: InputError for what is no such key."""
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise InputError(f"a key of the cluster cannot be read: {error}", fix="join the cluster again") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InputError("a key of the cluster is of another kind", fix="join the cluster again")
    return key


def pem_of(one: x509.Certificate | x509.CertificateSigningRequest | x509.CertificateRevocationList) -> bytes:
    return one.public_bytes(serialization.Encoding.PEM)


def ca_digest(pem: bytes) -> str:
    """Hex sha256 of an authority's certificate (DER): what a token pins it by."""
    der = x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
    return sha256(der).hexdigest()


def made_authority(name: str, key: ec.EllipticCurvePrivateKey, now: dt.datetime) -> x509.Certificate:
    """An authority's own certificate, which can vouch for nodes and for no further authority."""
    subject = _named(f"finllm cluster {name}")
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - EARLY)
        .not_valid_after(now + dt.timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def request_for(name: str, addresses: Sequence[str], key: ec.EllipticCurvePrivateKey) -> bytes:
    """A node's request for a certificate, PEM: its name, and the addresses (IP) that it will listen at."""
    names = [x509.DNSName(name), *(x509.IPAddress(ipaddress.ip_address(one)) for one in addresses)]
    return pem_of(
        x509.CertificateSigningRequestBuilder(_named(name))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )


def read_request(pem: bytes) -> tuple[str, x509.CertificateSigningRequest]:
    """The name that a request asks for, and the request. Errors: Refused for one that is not in order."""
    try:
        request = x509.load_pem_x509_csr(pem)
        ok = request.is_signature_valid
        name = _name_of(request.subject)
    except (ValueError, IndexError) as error:
        raise Refused(f"the request for a certificate cannot be read: {error}", fix="join again") from error
    if not ok or not NAME.match(name) or not isinstance(request.public_key(), ec.EllipticCurvePublicKey):
        raise Refused(f"the request for a certificate of {name!r} is not in order", fix="use a name of a-z, 0-9 and -")
    return name, request


def signed_certificate(
    request: x509.CertificateSigningRequest, ca: x509.Certificate, key: ec.EllipticCurvePrivateKey,
    now: dt.datetime, life: dt.timedelta,
) -> x509.Certificate:  # fmt: skip
    """A node's certificate: for both ends of TLS, for the addresses asked for, and for nothing else."""
    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    public = request.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    return (
        x509.CertificateBuilder(ca.subject, request.subject, public, x509.random_serial_number())
        .not_valid_before(now - EARLY)
        .not_valid_after(now + life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(names, critical=False)
        .add_extension(usage, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def revocation_list(
    serials: Sequence[int], ca: x509.Certificate, key: ec.EllipticCurvePrivateKey, now: dt.datetime
) -> bytes:
    """The list of revoked certificates, PEM, as TLS libraries take it."""
    builder = x509.CertificateRevocationListBuilder(
        ca.subject, now - EARLY, now + dt.timedelta(days=CRL_DAYS)
    ).add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    for serial in serials:
        one = x509.RevokedCertificateBuilder(serial, now - EARLY).build()
        builder = builder.add_revoked_certificate(one)
    return pem_of(builder.sign(key, hashes.SHA256()))


def believed(pem: bytes, ca_pem: bytes, crl_pem: bytes, now: dt.datetime) -> Holder:
    """The holder of a certificate that the authority vouches for now. Errors: Refused, with why."""
    ca = x509.load_pem_x509_certificate(ca_pem)
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        name = _name_of(certificate.subject)
    except (ValueError, IndexError) as error:
        raise Refused(f"a certificate cannot be read: {error}", fix="join the cluster again") from error
    join = f"join the cluster again as {name!r}"
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise Refused(f"the certificate of {name!r} is of another authority", fix=join) from error
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begins <= now <= ends:
        raise Refused(f"the certificate of {name!r} holds from {begins:{_TIME}} to {ends:{_TIME}}", fix=join)
    if certificate.serial_number in revoked_in(crl_pem, ca):
        raise Refused(f"the certificate of {name!r} was revoked", fix=join)
    public = certificate.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise Refused(f"the certificate of {name!r} has a key of another kind", fix=join)
    return Holder(name, certificate.serial_number, certificate.not_valid_after_utc, public)


def revoked_in(crl_pem: bytes, ca: x509.Certificate) -> frozenset[int]:
    """Serials on a list. Errors: Refused for one that the authority did not sign."""
    try:
        crl = x509.load_pem_x509_crl(crl_pem)
        public = ca.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        good = crl.is_signature_valid(public)
    except ValueError as error:
        raise Refused(f"the list of revoked certificates cannot be read: {error}", fix="join again") from error
    if not good:
        raise Refused("the list of revoked certificates is of another authority", fix="join the cluster again")
    return frozenset(one.serial_number for one in crl)


def signature(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    return key.sign(data, _ECDSA)


def signed_by(public: ec.EllipticCurvePublicKey, value: bytes, data: bytes) -> bool:
    """Whether a signature of the data is this key's."""
    try:
        public.verify(value, data, _ECDSA)
    except InvalidSignature:
        return False
    return True


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _name_of(subject: x509.Name) -> str:
    value = subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    return value if isinstance(value, str) else value.decode()

"""A home's part in a cluster: its folder, its key and certificate, and which nodes it believes."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from finllm.errors import InputError
from finllm.files import check_secret, write_atomically
from finllm.scheduler.cluster.certificates import Holder, believed, key_pem, read_key, revoked_in


def utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True)
class Place:
    """Where things lie in `home/cluster`. The private key is readable by its owner alone."""

    folder: Path

    @property
    def key_path(self) -> Path:
        return self.folder / "node.key"

    @property
    def certificate_path(self) -> Path:
        return self.folder / "node.crt"

    @property
    def ca_path(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def crl_path(self) -> Path:
        return self.folder / "revoked.crl"

    @property
    def secret_path(self) -> Path:
        """The cluster's token for Ray's own services, which its members share."""
        return self.folder / "ray.token"

    @property
    def state_path(self) -> Path:
        return self.folder / "node.json"

    @property
    def log_path(self) -> Path:
        return self.folder / "node.log"

    def state(self) -> dict[str, Any]:
        """What this home is in the cluster. Errors: InputError where it is in none."""
        try:
            return json.loads(self.state_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(
                "this home is in no cluster", fix="run 'finllm cluster init', or 'finllm cluster join ADDRESS'"
            ) from None
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {str(self.state_path)!r}: {error}", fix="leave and join again") from error

    def keep_state(self, state: dict[str, Any]) -> None:
        write_atomically(self.state_path, json.dumps(state, indent=1, sort_keys=True) + "\n")

    def key(self) -> ec.EllipticCurvePrivateKey:
        """Errors: InputError where it is missing, or others may read it."""
        try:
            check_secret(self.key_path, "the node's key")
            return read_key(self.key_path.read_bytes())
        except OSError as error:
            raise InputError(f"the node's key cannot be read: {error}", fix="join the cluster again") from error

    def keep(self, key: ec.EllipticCurvePrivateKey, certificate: bytes, ca: bytes, crl: bytes) -> None:
        """Put a node's key and what vouches for it in place."""
        write_atomically(self.key_path, key_pem(key))
        write_atomically(self.certificate_path, certificate)
        write_atomically(self.ca_path, ca)
        write_atomically(self.crl_path, crl)

    def holder(self, pem: bytes, now: dt.datetime | None = None) -> Holder:
        """Whose certificate this is, by this home's authority and list of revoked ones. Errors: Refused."""
        return believed(pem, self.ca_path.read_bytes(), self.crl_path.read_bytes(), now or utc_now())

    def by_authority(self, holder: Holder) -> bool:
        """Whether a holder is the authority itself."""
        return holder.serial == x509.load_pem_x509_certificate(self.ca_path.read_bytes()).serial_number

    def learn_revoked(self, crl: bytes) -> None:
        """Take over a list of the authority's, where it holds more. Errors: Refused for one of somebody else's."""
        ca = x509.load_pem_x509_certificate(self.ca_path.read_bytes())
        if revoked_in(crl, ca) > revoked_in(self.crl_path.read_bytes(), ca):
            write_atomically(self.crl_path, crl)

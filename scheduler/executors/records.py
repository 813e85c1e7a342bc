"""What the nodes of a cluster say of themselves, as signed records that every member reads and checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal

from pydantic import ValidationError

from finllm.scheduler.backends import Offer
from finllm.scheduler.calibration.measured import RungCalibration
from finllm.scheduler.cluster import Refused
from finllm.scheduler.cluster.place import Place
from finllm.scheduler.cluster.signed import Signer, opened

State = Literal["serving", "draining", "drained"]
LABELS = ("zone", "region", "power", "network")
"""What a node is told of where it stands: zone and grid region, and the domains of power and network that it shares."""


@dataclass(frozen=True)
class NodeRecord:
    """A node: where its door is, what it offers as measured there, and the authority's word on its weights.

    `room`: the actor that answers. `admission`: signed by the authority.
    """

    name: str
    address: str
    room: str
    state: State
    labels: Mapping[str, str]
    offers: tuple[Offer, ...]
    calibrations: Mapping[str, RungCalibration]
    admission: str

    def signed(self, signer: Signer) -> bytes:
        said = {
            "name": self.name, "address": self.address, "room": self.room, "state": self.state,
            "labels": dict(self.labels), "offers": [asdict(offer) for offer in self.offers],
            "calibrations": {name: one.model_dump_json() for name, one in self.calibrations.items()},
            "admission": self.admission,
        }  # fmt: skip
        return signer.sign("node", said)

    def in_state(self, state: State) -> NodeRecord:
        return replace(self, state=state)

    @property
    def weights(self) -> list[str]:
        return [offer.weights_sha256 for offer in self.offers]


def read_record(envelope: bytes, place: Place) -> NodeRecord:
    """A node's record: signed by itself, admitted by the authority with these weights and this build.

    Errors: Refused where anything does not hold.
    """
    holder, said = opened(envelope, "node", place)
    try:
        offers = tuple(Offer.from_record(row) for row in said["offers"])
        calibrations = {name: RungCalibration.model_validate_json(one) for name, one in said["calibrations"].items()}
        record = NodeRecord(said["name"], said["address"], said["room"], said["state"], dict(said["labels"]),
                            offers, calibrations, said["admission"])  # fmt: skip
    except (KeyError, TypeError, AttributeError, ValidationError) as error:
        raise Refused(f"the record of {holder.name!r} cannot be read: {error}", fix=_UPDATE) from error
    if record.name != holder.name:
        raise Refused(f"{holder.name!r} speaks for {record.name!r}", fix=_REVOKE)
    _admitted(record, place)
    return record


def _admitted(record: NodeRecord, place: Place) -> None:
    authority, word = opened(record.admission.encode(), "admission", place)
    if not place.by_authority(authority):
        raise Refused(f"{record.name!r} was admitted by {authority.name!r}, who is not the authority", fix=_REVOKE)
    if word.get("node") != record.name:
        raise Refused(f"{record.name!r} shows the admission of {word.get('node')!r}", fix=_REVOKE)
    more = sorted(set(record.weights) - set(word.get("weights", ())))
    if more:
        raise Refused(f"{record.name!r} offers weights that it was not admitted with: {more[0][:16]}", fix=_REVOKE)


def asked_to(node: str, verb: str, signer: Signer) -> bytes:
    """A member's wish to a node, such as to drain."""
    return signer.sign("wish", {"node": node, "verb": verb})


def wish_of(envelope: bytes, node: str, place: Place) -> tuple[str, str]:
    """Who wishes what of this node. Errors: Refused."""
    holder, said = opened(envelope, "wish", place)
    if said.get("node") != node:
        raise Refused(f"{holder.name!r} showed {node!r} the wish to another node", fix=_REVOKE)
    return holder.name, str(said.get("verb"))


_UPDATE = "use the same version of finllm on all nodes"
_REVOKE = "run 'finllm cluster revoke' for that node"

"""A node at work: it starts Ray, opens its doors and its room, proves what it has, measures itself, then offers."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shutil
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finllm.errors import BackendError, FinllmError
from finllm.models.ladder import Rung, derived_rungs, take_rung
from finllm.models.registry import default_source
from finllm.processes import ticks_of
from finllm.scheduler.backends import Offer
from finllm.scheduler.backends.llama_cpp import llama_build
from finllm.scheduler.calibration.measured import RungCalibration
from finllm.scheduler.cluster import Refused, Told
from finllm.scheduler.cluster.admitting import Admitting, proof_of, weights_route
from finllm.scheduler.cluster.authority import LIFE, Authority
from finllm.scheduler.cluster.certificates import Holder, request_for
from finllm.scheduler.cluster.door import Door
from finllm.scheduler.cluster.knock import fetch, knock
from finllm.scheduler.cluster.place import Place, utc_now
from finllm.scheduler.cluster.signed import Signer
from finllm.scheduler.executors.members import Members, view_signed
from finllm.scheduler.executors.ray_processes import NAMESPACE, SERVE, RayProcesses, fresh_folder, the_ray
from finllm.scheduler.executors.ray_room import connect, keys, read, remove, write
from finllm.scheduler.executors.records import NodeRecord, State, wish_of
from finllm.scheduler.executors.room import Room
from finllm.settings import Settings

FIRST_LOOK = 2.0
"""s between two looks at whether the first node is still the one that was joined."""
EVERY = 0.5
"""s between two looks at what members wish, and at what was revoked."""
EMPTIES = 120.0
"""Longest wait for the calls of a node that drains, s."""

Measure = Callable[[Settings, Offer], RungCalibration | None]
Say = Callable[[str], None]


@dataclass
class Node:
    """This home's node, from its start until `close`. `told` puts on record, `say` tells who watches the log."""

    settings: Settings
    told: Told
    measure: Measure
    say: Say

    def __post_init__(self) -> None:
        self.place = Place(self.settings.cluster_dir)
        self.state: dict[str, Any] = self.place.state()
        self.authority = Authority(self.place, self.told) if self.state["first"] else None
        self._doors: list[Door] = []
        self._ray: RayProcesses | None = None
        self._temp: Path | None = None
        self._room: Any = None
        self._record: NodeRecord | None = None
        self._view: tuple[set[str], bytes] | None = None
        self._begun = uuid.uuid4().hex if self.authority is not None else ""
        """Which directory this node is of: the first node's process makes a new one."""

    def start(self) -> None:
        """Come up, in the order in which each step may be trusted to the next. Errors: BackendError, Refused."""
        state = self.state
        if self.authority is not None:
            self._vouch_for_itself(self.authority)
            self._temp = fresh_folder()
        self._ray = RayProcesses.start(self.place, host=state["host"], gcs=state["gcs"], first=state["first"],
                                       labels=state["labels"], temp=self._temp)  # fmt: skip
        self._keep(ray=self._ray.process.pid, ray_ticks=ticks_of(self._ray.process.pid))
        self.say("Ray runs")
        connect(self.place, state)
        if self.authority is None:
            self._begun = self._directory()
            self._fetch_weights()
        self._open_doors()
        offers = self._open_room()
        self.say(f"offers {', '.join(offer.name for offer in offers)}")
        admission = self._admission(offers)
        calibrations = {offer.name: one for offer in offers if (one := self.measure(self.settings, offer)) is not None}
        self._record = NodeRecord(state["name"], self._door.host + f":{self._door.port}", f"room-{state['name']}",
                                  "serving", state["labels"], tuple(offers), calibrations, admission)  # fmt: skip
        self._publish("serving")
        self._keep(ready=True)
        self.say("ready")

    def run(self, ending: threading.Event) -> None:
        """Serve until `ending`: hear wishes, renew the certificate, spread what was revoked."""
        import ray.exceptions

        trouble = ""
        members = Members(self.place, self.told, lambda _: None, of=self.state["name"])
        members.ending = ending
        members.start(lambda: self._tell_doubts(members.doubted()))
        if self.authority is None:
            threading.Thread(target=self._guard, args=(ending,), daemon=True, name="finllm-first").start()
        while not ending.wait(EVERY):
            try:
                self._step()
            except FinllmError as error:
                self.say(str(error))
            except ray.exceptions.RayError as error:  # the directory is away, or another's: the guard sees to that
                said, trouble = trouble, str(error).splitlines()[0][:200]
                if said != trouble:
                    self.say(trouble)
            if self.authority is not None and self._ray_ended():
                raise BackendError("Ray has ended on this node", fix="run 'finllm cluster restart' here")

    def _tell_doubts(self, doubts: Mapping[str, str]) -> None:
        """Say with this node's signs of life whom it doubts; signed once for as long as these are the same nodes."""
        if self._view is None or set(doubts) != self._view[0]:
            signer = Signer(self.place.key(), self.place.certificate_path.read_bytes())
            self._view = set(doubts), view_signed(self.state["name"], doubts, signer)
        self._room.sees.remote(self._view[1])

    def _guard(self, ending: threading.Event) -> None:
        """Start anew where the first node was, or Ray has ended here. In a thread: without the first node, asking Ray
        for anything waits for a day.
        """
        while not ending.wait(FIRST_LOOK):
            with contextlib.suppress(BackendError, Refused):  # it is not there: what goes on without it does
                found = self._directory()
                if found != self._begun or self._ray_ended():
                    self.say("the first node was started anew" if found != self._begun else "Ray has ended here")
                    self._again()

    def _again(self) -> None:
        """Be a new process of this home's node, with the same membership: what Ray knew is of no use any more."""
        if self._ray is not None:
            self._ray.stop(seconds=2.0)
        self._keep(ready=False)
        os.execv(sys.executable, [sys.executable, *SERVE])

    def _ray_ended(self) -> bool:
        return self._ray is not None and self._ray.process.poll() is not None

    def _directory(self) -> str:
        """Which directory the first node has now. Errors: BackendError, Refused."""
        return str(knock(self.place, self.state["peer"], "/directory", {})["begun"])

    def drain(self) -> None:
        """Take no further call, and wait for those under way."""
        import ray

        self._publish("draining")
        ends = time.monotonic() + EMPTIES
        time.sleep(2 * EVERY)  # whoever has not seen it yet may still send a call
        while ray.get(self._room.busy.remote()) and time.monotonic() < ends:
            time.sleep(0.1)
        self._publish("drained")

    def close(self, *, leaving: bool) -> None:
        """End the node; `leaving`: for good, so that its certificate is revoked."""
        import ray
        import ray.exceptions

        try:
            if ray.is_initialized() and self._record is not None:
                remove(f"node:{self.state['name']}")
            if leaving and self.authority is None:
                knock(self.place, self.state["peer"], "/leave", {})
        except (FinllmError, ray.exceptions.RayError) as error:
            self.say(f"left without a word: {error}")
        finally:
            for door in self._doors:
                door.close()
            the_ray().shutdown()
            if self._ray is not None:
                self._ray.stop()
            if self._temp is not None:
                shutil.rmtree(self._temp, ignore_errors=True)
            self._keep(ready=False, ray=None, pid=None)

    @property
    def _door(self) -> Door:
        return self._doors[-1]

    def _keep(self, **facts: Any) -> None:
        self.state |= facts
        self.place.keep_state(self.state)

    def _files(self) -> Mapping[str, Path]:
        return {rung.sha256: rung.path for rung in self._rungs()}

    def _rungs(self) -> tuple[Rung, ...]:
        return derived_rungs(default_source(self.settings).sha256, self.settings)

    def _facts(self) -> Mapping[str, Any]:
        """What a node that was let in is told."""
        return {
            "secret": self.place.secret_path.read_text(encoding="utf-8"), "gcs": self.state["gcs"],
            "peer": f"{self.state['host']}:{self._door.port}",
            "rungs": [rung.model_dump_json() for rung in self._rungs()],
        }  # fmt: skip

    def _tell_directory(self, _: Holder | None, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        """Which beginning of this node's Ray it is: a member that knows another one joins it anew."""
        del asked
        return {"begun": self._begun}

    def _open_doors(self) -> None:
        host, routes = self.state["host"], weights_route(self._files)
        if self.authority is not None:
            admitting = Admitting(self.authority, self._files, llama_build(), self._facts)
            port = int(self.state["address"].rpartition(":")[2])
            self._doors.append(Door(self.place, admitting.first_routes(), self.told, host, port, mutual=False))
            routes |= admitting.routes() | {"/directory": self._tell_directory}
        self._doors.append(Door(self.place, routes, self.told, host, int(self.state.get("door", 0))))
        if self.authority is not None:
            self._keep(door=self._door.port)  # members know it: started anew, it is to be the same

    def _fetch_weights(self) -> None:
        """Weights that the first node has and this one lacks, by digest."""
        there = [Rung.model_validate_json(one) for one in self.state.get("rungs", ())]
        for rung in there:
            if rung.source_sha256 == default_source(self.settings).sha256 and rung.sha256 not in self._files():
                self.say(f"fetching {rung.precision}, {rung.bytes / 1e6:.0f} MB")
                take_rung(rung, self.settings, lambda to, rung=rung: fetch(self.place, self.state["peer"],
                                                                          rung.sha256, to))  # fmt: skip

    def _open_room(self) -> list[Offer]:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        labels = {name: value for name, value in self.state["labels"].items() if value}
        self._room = ray.remote(Room).options(
            name=f"room-{self.state['name']}", namespace=NAMESPACE, num_cpus=0, max_concurrency=512, max_restarts=-1,
            scheduling_strategy=here, _labels=labels,
        ).remote()  # fmt: skip
        return [Offer.from_record(row) for row in ray.get(self._room.offers.remote())]

    def _admission(self, offers: list[Offer]) -> str:
        """The authority's word on the weights that are here. Errors: Refused."""
        holder = self.place.holder(self.place.certificate_path.read_bytes())
        local = {one.weights_sha256: Path(one.weights_file) for one in offers if one.weights_file is not None}
        servers = [one.weights_sha256 for one in offers if one.weights_file is None]
        if self.authority is not None:
            weights = [*local, *servers]
            return self.authority.admission(holder.name, holder.serial, weights, llama_build()).decode()
        nonce = str(knock(self.place, self.state["peer"], "/challenge", {})["nonce"])
        proofs = {digest: proof_of(nonce, path) for digest, path in local.items()}
        said = {"nonce": nonce, "build": llama_build(), "proofs": proofs, "servers": servers}
        return str(knock(self.place, self.state["peer"], "/prove", said)["admission"])

    def _publish(self, state: State) -> None:
        assert self._record is not None
        self._record = self._record.in_state(state)
        signer = Signer(self.place.key(), self.place.certificate_path.read_bytes())
        write(f"node:{self.state['name']}", self._record.signed(signer))

    def _step(self) -> None:
        name = self.state["name"]
        if self.authority is not None:
            if read("crl") != self.authority.crl:
                write("crl", self.authority.crl)
        elif (crl := read("crl")) is not None:
            self.place.learn_revoked(crl)
        for key in keys(f"wish:{name}:"):
            envelope = read(key)
            remove(key)
            if envelope is None:
                continue
            try:
                who, verb = wish_of(envelope, name, self.place)
            except Refused as error:
                self.told("cluster.refused", {"node": name, "why": error.message})
                raise
            self.told("cluster.wish", {"node": name, "by": who, "verb": verb})
            if verb == "drain":
                threading.Thread(target=self.drain, daemon=True).start()
        self._renew()

    def _vouch_for_itself(self, authority: Authority) -> None:
        request = request_for(self.state["name"], [self.state["host"]], self.place.key())
        self._keep_certificate(authority.renew(self.state["name"], request))

    def _keep_certificate(self, certificate: bytes) -> None:
        self.place.keep(self.place.key(), certificate, self.place.ca_path.read_bytes(),
                        self.place.crl_path.read_bytes())  # fmt: skip

    def _renew(self) -> None:
        """The next certificate, once half of this one's life has gone."""
        holder = self.place.holder(self.place.certificate_path.read_bytes())
        if holder.until - utc_now() > LIFE / 2:
            return
        if self.authority is not None:
            self._vouch_for_itself(self.authority)
        else:
            request = request_for(self.state["name"], [self.state["host"]], self.place.key())
            certificate = knock(self.place, self.state["peer"], "/renew", {"request": request.decode()})["certificate"]
            self._keep_certificate(str(certificate).encode())
        self._publish(self._record.state if self._record else "serving")
        self.say(f"certificate renewed at {dt.datetime.now(dt.UTC):%H:%MZ}, process {os.getpid()}")

"""What the audit log says of each thing that happened: bodies of records, made from the ledger's rows.

A record names content by sha256 and keeps it in `blobs`; it holds no fraction, so probabilities and seconds are in the
blobs. `None` means: not known to whoever wrote the record.
"""

from __future__ import annotations

import getpass
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from importlib import metadata
from typing import Any

from finllm.guardrails.audit.commit import Item
from finllm.guardrails.rules import RULE_BOOK_VERSION
from finllm.memory.answers import HUMAN
from finllm.memory.ledger import dump
from finllm.memory.reading import Use
from finllm.memory.review_rows import REVIEW
from finllm.memory.texts import texts_of
from finllm.memory.users import USER
from finllm.scheduler.record import CALL, PLACEMENT, EntryKind

FILES = EntryKind("files")
"""The files that a run's report was written to: the folder, and each one's sha256."""
CLOCK = "CLOCK_REALTIME of this machine"
CLUSTER = "cluster."
"""What the actions of a cluster's records begin with: a home that is a node alone has these, and no ledger."""
SERVICE = {"kind": "service", "name": "finllm"}
_HUMAN_DEFAULT = "withhold"
"""What happens to disputed shocks where no person says otherwise: another answer overrides it."""


def moment(ns: int | None = None) -> dict[str, str]:
    """UTC nanoseconds since 1970, as a string (they exceed what every JSON reader keeps), and which clock said so."""
    return {"ns": str(time.time_ns() if ns is None else ns), "clock": CLOCK}


def session_opened(session: str, through: int, recovered: int, unproven: int) -> Item:
    """A process opened the log.

    `through`: the ledger's use up to which every one was looked at; `recovered` of those that had no record got theirs
    now, and the `unproven` others, whose answers have no record either, are not believed.
    """
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    body = {
        "action": "session.opened",
        "actor": {**SERVICE, "version": metadata.version("finllm")},
        "at": moment(),
        "session": session,
        "process": {"pid": os.getpid(), "user": user, "host": platform.node()},
        "policy": {"rule_book": RULE_BOOK_VERSION},
        "ledger": {"through": through},
        "recovered": recovered,
        "unproven": unproven,
    }
    return body, {}


def clock_stepped(session: str, by_ns: int) -> Item:
    """The clock was set by so many ns since the record before, negative for back: times around it do not compare."""
    body = {
        "action": "clock.stepped",
        "actor": SERVICE,
        "at": moment(),
        "session": session,
        "by_ns": str(by_ns),
    }
    return body, {}


def use_recorded(use: Use, run_id: str, use_id: int, at_ns: int, session: str, *, recovered: bool) -> Item:
    """A run used a ledger entry: a call, a placement or a person's answer; the first use is the one that wrote it.

    `recovered`: the process that wrote the row died before it could write this.
    """
    entry = use.entry
    request, response = dump(entry.request).encode(), dump(entry.response).encode()
    blobs = {sha256(data).hexdigest(): data for data in (request, response)}
    body: dict[str, Any] = {
        "action": f"{entry.kind}.{'reused' if use.reused else 'recorded'}",
        "at": moment(at_ns),
        "session": session,
        "run": run_id,
        "node": use.node,
        "task": entry.key,
        "ledger": {"use": use_id},
        "recovered": recovered,
        "request": sha256(request).hexdigest(),
        "response": sha256(response).hexdigest(),
        "blobs": sorted(blobs),
        "policy": {"rule_book": RULE_BOOK_VERSION},
        **_SAYS.get(entry.kind, _noted)(entry.actor, entry.request, entry.response),
    }
    if entry.kind == CALL:
        body["cache"] |= {"ledger": use.reused}
    return body, blobs


def run_started(run_id: str, request: Mapping[str, Any], session: str, *, kept: bool = False) -> Item:
    """A run begins. `kept`: the texts that it reads are in the home, each under its sha256, which `texts` names."""
    body, blobs = _run("run.started", run_id, request, session)
    texts = {"texts": sorted({sha256(text.encode()).hexdigest() for text in texts_of(request)})} if kept else {}
    return {**body, **texts, "inputs": inputs_of(request, {}), "seed": request.get("seed")}, blobs


def run_ended(
    run_id: str, status: str, request: Mapping[str, Any], result: Mapping[str, Any] | None, session: str
) -> Item:
    """A run ended, stopped or waits; with a report: its sources' credibility, verdicts, and what was overridden."""
    body, blobs = _run(f"run.{status}", run_id, result or {}, session)
    if result is None:
        return {**body, "content": None, "blobs": []}, {}
    judged = {source["id"]: source["verdict"] for source in result.get("sources", ())}
    said = {
        "inputs": inputs_of(request, judged),
        "verdicts": [
            *({"by": f"rule {f['rule']}", "version": f["version"], "verdict": f["verdict"], "why": f["what"]}
              for f in result.get("findings", ())),
            {"by": "validator", "version": None, "verdict": result.get("verdict"), "why": None},
            {"by": "compliance", "version": None, "verdict": result.get("compliance"), "why": None},
        ],
        "decision": {
            "chosen": status,
            "refused": [{"what": f"shock {shock['factor']}", "why": shock["refused"]}
                        for shock in result.get("shocks", ()) if shock.get("refused")],
        },
        "overridden": [
            {"who": d["who"], "about": d["about"], "said": d["said"], "instead": d["instead_of"]}
            for d in result.get("dissent", ())
        ],
    }  # fmt: skip
    return {**body, **said}, blobs


def told_by_cluster(action: str, about: Mapping[str, Any], session: str) -> Item:
    """What a cluster granted or refused, such as `cluster.refused`: which node, and why."""
    body = {"action": action, "actor": SERVICE, "at": moment(), "session": session, "about": dict(about)}
    return body, {}


def inputs_of(request: Mapping[str, Any], judged: Mapping[str, str]) -> list[dict[str, Any]]:
    """The inputs of a run by hash. `fetched` is None for what came with it, `credibility` until it is judged."""
    sources: Sequence[Mapping[str, Any]] = request.get("scenario", {}).get("sources", ())
    listed = [
        {"what": "source", "id": s["id"], "uri": s["url"], "sha256": sha256(s["text"].encode()).hexdigest(),
         "published": s["published_at"], "fetched": s.get("fetched_at"), "credibility": judged.get(s["id"])}
        for s in sources
    ]  # fmt: skip
    for what in ("portfolio", "limits"):
        given = request.get(what, {})
        listed.append(_file(what, given.get("sha256") or _digest(given)))
    return [*listed, *(_file(f"prices {file['path']}", file["sha256"]) for file in request.get("prices", ()))]


def _file(what: str, digest: str | None) -> dict[str, Any]:
    return {"what": what, "sha256": digest, "fetched": None, "credibility": None}


def _run(action: str, run_id: str, content: Mapping[str, Any], session: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    data = dump(content).encode()
    digest = sha256(data).hexdigest()
    body = {
        "action": action,
        "actor": SERVICE,
        "at": moment(),
        "session": session,
        "run": run_id,
        "content": digest,
        "blobs": [digest],
        "policy": {"rule_book": RULE_BOOK_VERSION},
    }
    return body, {digest: data}


def _call(actor: str, request: Mapping[str, Any], response: Mapping[str, Any]) -> dict[str, Any]:
    offer = request.get("offer", {})
    return {
        "actor": {"kind": "model", "name": actor},
        "agent": request.get("agent"),
        "model": {
            "weights": request.get("weights_sha256"),
            "precision": request.get("precision"),
            "tier": offer.get("tier"),
            "build": offer.get("build"),
            "context": offer.get("context"),
            **{name: offer[name] for name in ("kind", "where", "scores", "votes") if name in offer},
            "seed": request.get("seed"),
        },
        "prompt": {"version": request.get("prompt_version"), "sha256": _digest(request.get("prompt"))},
        "template": _digest(request.get("template")),
        "cache": {"prefix_tokens": response.get("cached_tokens")},
        "batch": response.get("side_by_side"),
        "raw_output": sha256(str(response.get("text", "")).encode()).hexdigest(),
    }


def _placement(actor: str, request: Mapping[str, Any], response: Mapping[str, Any]) -> dict[str, Any]:
    refused = sorted(dict(response.get("refused", {})).items())
    return {
        "actor": {"kind": "service", "name": actor},
        "agent": request.get("agent"),
        "decision": {
            "chosen": response.get("chosen"),
            "rule": response.get("rule"),
            "refused": [{"what": name, "why": why} for name, why in refused],
        },
    }


def _human(actor: str, request: Mapping[str, Any], response: Mapping[str, Any]) -> dict[str, Any]:
    answer = response.get("answer")
    options = [option for option in request.get("options", ()) if option != answer]
    override = {"of": _HUMAN_DEFAULT, "with": answer, "reason": response.get("reason")}
    return {
        "actor": {"kind": "person", "name": actor},
        "decision": {"chosen": answer, "refused": [{"what": option, "why": None} for option in options]},
        "override": override if answer != _HUMAN_DEFAULT else None,
    }


def _files(actor: str, request: Mapping[str, Any], response: Mapping[str, Any]) -> dict[str, Any]:
    return {"actor": {**SERVICE, "name": actor}, "folder": request["folder"], "files": response["files"]}


def _person(actor: str, request: Mapping[str, Any], response: Mapping[str, Any]) -> dict[str, Any]:
    """What somebody did with a review or a user: who and what; why is in the blobs."""
    del request
    kind = "service" if actor == SERVICE["name"] else "person"
    chosen = response.get("what", "put" if "run" in response else "looked")
    return {"actor": {"kind": kind, "name": actor}, "decision": {"chosen": chosen, "refused": []}}


def _digest(value: Any) -> str:
    return sha256(dump(value).encode()).hexdigest()


def _noted(actor: str, request: Mapping[str, Any], response: Mapping[str, Any]) -> dict[str, Any]:
    """Whatever else a folder puts on record, such as a state's digest or a batch: all of it is in the blobs."""
    del request, response
    return {"actor": {"kind": "service", "name": actor}}


_SAYS: dict[EntryKind, Callable[[str, Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]] = {
    CALL: _call,
    PLACEMENT: _placement,
    HUMAN: _human,
    FILES: _files,
    REVIEW: _person,
    USER: _person,
}
"""Kinds of which a record says more than that they were written; every other one is `_noted`."""

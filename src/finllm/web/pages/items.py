"""The queue and an item: the verdict first, then what people did, then everything else; claim, sign, send back."""

from __future__ import annotations

import contextlib
import io
import time
import zipfile
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, RedirectResponse, Response

from finllm.errors import AccessRefused, InputError, RecordError, ReviewRefused
from finllm.memory.review_rows import FAULTS
from finllm.memory.review_rules import REVIEWERS
from finllm.web.doors import SIGNED_IN, Asked, Door, only
from finllm.web.flips import flips_of
from finllm.web.live import digest_of
from finllm.web.opening import opened_beside
from finllm.web.pages.runs import body_of
from finllm.web.pages.signing_in import ways
from finllm.web.rates import SIGNING_IN
from finllm.web.refusals import Refused, not_found

if TYPE_CHECKING:
    from finllm.memory.reviews import Shown

REVIEWING = only(*REVIEWERS)
PUTTING = only("analyst", "risk")
ENDED = 30
"""Items that were ended and are listed."""


def queue(asked: Asked) -> Response:
    """What waits: one's own and what comes back first; then what was ended."""
    shown, ended = _queues(asked)
    waiting = sum(one.why_not is None for one in shown)
    return asked.page("queue.html.j2", shown=shown, ended=ended, waiting=waiting, state=_queue_digest(shown, ended),
                      others=sum(one.claimed_by not in (None, asked.who.name) for one in shown))  # fmt: skip


def queue_state(asked: Asked) -> str:
    """A digest of what the queue shows to whoever asks."""
    return _queue_digest(*_queues(asked))


def _queues(asked: Asked) -> tuple[list[Shown], list[Shown]]:
    reviews = asked.serving.reviews
    return reviews.queue(asked.who), reviews.queue(asked.who, ended=True, most=ENDED)


def _queue_digest(shown: list[Shown], ended: list[Shown]) -> str:
    return digest_of(*((one.id, one.state, one.why_not, one.claimed_by, len(one.item.events))
                       for one in (*shown, *ended)))  # fmt: skip


def queue_json(asked: Asked) -> Response:
    """The queue for a program."""
    return JSONResponse({"items": [_plain(one) for one in asked.serving.reviews.queue(asked.who)]})


def item(asked: Asked) -> Response:
    """An item; with `?open=E7` that row beside it. That somebody looks is on record."""
    return _item(asked)


def item_json(asked: Asked) -> Response:
    shown = _seen(asked)
    return JSONResponse(_plain(shown))


def item_state(asked: Asked) -> str:
    """A digest of what the item's page shows to whoever asks."""
    return _state_of(asked, item_of(asked))


def _state_of(asked: Asked, shown: Shown) -> str:
    return digest_of(asked.serving.explaining.now(shown.item.row.run), shown.state, shown.why_not,
                     shown.claimed_by, shown.item.row.report_sha256,
                     [event.model_dump() for event in shown.item.events])  # fmt: skip


def _plain(shown: Shown) -> dict[str, Any]:
    """An item as JSON, of what its viewer may see."""
    row = shown.item.row
    return {"id": shown.id, "state": shown.state, "title": row.title, "run": row.run, "put_by": row.who, "why": row.why,
            "at": row.at, "report_sha256": row.report_sha256, "needs": row.needs, "blind": shown.blind,
            "signatures": [one.model_dump(mode="json") for one in shown.item.signatures],
            "events": [one.model_dump(mode="json") for one in shown.item.events],
            "claimed_by": shown.claimed_by, "why_not": shown.why_not}  # fmt: skip


def item_of(asked: Asked) -> Shown:
    """The item of the address, as its viewer may see it. Errors: NotFound."""
    try:
        return asked.serving.reviews.item(asked.path["item"], asked.who)
    except InputError:
        raise not_found("item") from None


def _seen(asked: Asked) -> Shown:
    """The item, once it is noted that somebody looks: it comes onto the record right behind the page."""
    shown = item_of(asked)
    asked.serving.looks.note(asked.who, shown.id)
    return shown


def _item(asked: Asked, failed: Any = None, status: int = 200) -> Response:
    serving, shown = asked.serving, _seen(asked)
    row = shown.item.row
    run = serving.reports.get(row.run)
    mine = shown.claimed_by == asked.who.name
    if mine:
        with contextlib.suppress(RecordError):
            serving.reviews.heartbeat(shown.id, asked.who)  # who turns its pages still reads it
    before = None if shown.blind else _approved_before(asked, shown)
    verified = serving.verifier.look(serving.ledger.last_use())
    return asked.page(
        "item.html.j2", status, shown=shown, row=row, run=run, base=f"/item/{shown.id}", mine=mine, failed=failed,
        may=shown.why_not is None and asked.who.role in REVIEWERS and shown.item.ended is None,
        own=row.who == asked.who.name, faults=FAULTS, looks=serving.reviews.looks(shown.id, asked.who),
        body=body_of(asked, row.run, f"/item/{shown.id}"), compared=before, verified=verified,
        state=_state_of(asked, shown), flips=flips_of(asked, row.run),
        **opened_beside(asked, row.run), **_to_sign(asked, shown),
    )  # fmt: skip


def _to_sign(asked: Asked, shown: Shown) -> dict[str, object]:
    """How the viewer may show again who they are: by pass phrase, with a provider; `proven`: they just did."""
    told, issuer = ways(asked), asked.serving.oidc.issuer if asked.serving.oidc else None
    if asked.who.issuer != issuer:
        return {**told, "provider": "", "proven": False}
    said = asked.serving.reviews.flows.proven(asked.secret, asked.who.name, shown.id, shown.item.row.report_sha256)
    return {**told, "proven": said is not None}


def _approved_before(asked: Asked, shown: Shown) -> dict[str, Any] | None:
    """What differs from the version that was approved, or sent back, before this one."""
    row, reviews = shown.item.row, asked.serving.reviews
    items = [one for one in reviews.record.items().values() if one.row.audit is None]
    approved = [one for one in items if one.ended == "approved" and one.row.title == row.title
                and one.row.number < row.number]  # fmt: skip
    other = approved[-1] if approved else None
    what = "the last approved one"
    if row.follows is not None:
        before = next((one for one in items if one.row.number == row.follows), None)
        if before is not None and (before.ended == "sent back" or other is None):
            other, what = before, f"{before.id}, which it takes the place of"
    if other is None or other.row.run == row.run:
        return None
    diff = asked.serving.reports.diff(other.row.run, row.run)
    return {"what": what, "id": other.id, "run": other.row.run, "diff": diff}


def _back(asked: Asked) -> Response:
    return RedirectResponse(f"/item/{asked.path['item']}", 303)


def claim(asked: Asked) -> Response:
    asked.serving.reviews.claim(_id(asked), asked.who)
    return _back(asked)


def release(asked: Asked) -> Response:
    asked.serving.reviews.release(_id(asked), asked.who)
    return _back(asked)


def heartbeat(asked: Asked) -> Response:
    asked.serving.reviews.heartbeat(_id(asked), asked.who)
    return Response(status_code=204)


def sign(asked: Asked) -> Response:
    """Sign the bytes that were on the page, by the pass phrase typed again, or by what a provider was just asked."""
    if not asked.serving.rates.allow("sign in", asked.who.name, SIGNING_IN, time.monotonic()):
        raise Refused(429, "Too often", "more pass phrases were tried than one person mistypes", "wait a minute")
    form = asked.form
    try:
        asked.serving.reviews.sign(_id(asked), asked.who, form.get("phrase", ""), form.get("reason", ""),
                                   report_sha256=form.get("report", ""),
                                   session=asked.secret if form.get("again") == "yes" else "")  # fmt: skip
    except AccessRefused as error:
        return _item(asked, error, 403)
    except ReviewRefused as error:
        if error.rule == "reason":
            return _item(asked, error, 400)
        raise
    return _back(asked)


def send_back(asked: Asked) -> Response:
    about: Any = asked.form.get("about", "")
    try:
        asked.serving.reviews.send_back(_id(asked), asked.who, about, asked.form.get("reason", ""))
    except ReviewRefused as error:
        if error.rule == "reason":
            return _item(asked, error, 400)
        raise
    return _back(asked)


def escalate(asked: Asked) -> Response:
    try:
        asked.serving.reviews.escalate(_id(asked), asked.who, asked.form.get("reason", ""))
    except ReviewRefused as error:
        if error.rule == "reason":
            return _item(asked, error, 400)
        raise
    return _back(asked)


def withdraw(asked: Asked) -> Response:
    asked.serving.reviews.withdraw(_id(asked), asked.who, asked.form.get("reason", ""))
    return RedirectResponse("/queue", 303)


def bundle(asked: Asked) -> Response:
    """The item as two bundles that verify offline: the run that was reviewed, and what was said of it."""
    from finllm.guardrails.audit import LogReader
    from finllm.guardrails.audit.bundle import bundle_of
    from finllm.memory.texts import Texts

    shown, settings = _seen(asked), asked.serving.settings
    if shown.blind:
        raise not_found("bundle")
    asked.serving.ledger.tip()  # under a checkpoint that is signed now
    reader, packed = LogReader(settings.audit_dir), io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as files:
        for folder, run in (("run", shown.item.row.run), ("review", shown.id)):
            for name, content in bundle_of(reader, run, texts=Texts(settings.texts_dir)).items():
                files.writestr(f"{shown.id}/{folder}/{name}", content)
    return Response(packed.getvalue(), media_type="application/zip", headers={
        "content-disposition": f'attachment; filename="{shown.id}.zip"'})  # fmt: skip


def _id(asked: Asked) -> str:
    """The item, which there is. Errors: NotFound."""
    return item_of(asked).id


DOORS = (
    Door("GET", "/queue", SIGNED_IN, queue),
    Door("GET", "/queue.json", SIGNED_IN, queue_json),
    Door("GET", "/item/{item}.json", SIGNED_IN, item_json),
    Door("GET", "/item/{item}", SIGNED_IN, item),
    Door("GET", "/item/{item}/bundle.zip", SIGNED_IN, bundle, slow=True),
    Door("POST", "/item/{item}/claim", REVIEWING, claim),
    Door("POST", "/item/{item}/release", REVIEWING, release),
    Door("POST", "/item/{item}/heartbeat", REVIEWING, heartbeat),
    Door("POST", "/item/{item}/sign", REVIEWING, sign, slow=True),
    Door("POST", "/item/{item}/send-back", REVIEWING, send_back),
    Door("POST", "/item/{item}/escalate", REVIEWING, escalate),
    Door("POST", "/item/{item}/withdraw", PUTTING, withdraw),
)

"""The held connections of live pages: each is told of what its viewer may see, for as long as they are signed in."""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import Response, StreamingResponse

from finllm.errors import FinllmError
from finllm.web.doors import SIGNED_IN, Asked, Door, Handler
from finllm.web.pages.items import item_state, queue_state
from finllm.web.pages.sessions import WORKING, session_state
from finllm.web.tokens import form_token


def live(state: Callable[[Asked], str]) -> Handler:
    """A handler that holds the connection, and tells of each new digest that `state` gives."""

    def handler(asked: Asked) -> Response:
        state(asked)  # refused at once where its page would be
        serving, whose = asked.serving, form_token(asked.secret)
        serving.live.admit(whose)

        def now() -> str | None:
            if serving.peek(asked.secret) != asked.user:
                return None
            try:
                return state(asked)
            except FinllmError:
                return None

        last = asked.header("last-event-id") or asked.query.get("state", "")
        return StreamingResponse(serving.live.stream(whose, now, last), media_type="text/event-stream")

    return handler


DOORS = (
    Door("GET", "/live/queue", SIGNED_IN, live(queue_state), held=True),
    Door("GET", "/live/item/{item}", SIGNED_IN, live(item_state), held=True),
    Door("GET", "/live/session/{session}", WORKING, live(session_state), held=True),
)

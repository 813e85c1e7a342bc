"""What others may see of a desk while it is open: its status file, and metrics and spans where they are asked for."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict
from typing import Any

from finllm.errors import InputError
from finllm.events import EventBus, Noted
from finllm.scheduler.broker import Broker
from finllm.scheduler.health.status import StatusFile
from finllm.scheduler.telemetry.prometheus import serve_metrics
from finllm.scheduler.telemetry.spans import send_spans
from finllm.settings import Settings

ReadPrices = Callable[[], Mapping[str, float]]


@contextlib.contextmanager
def watched(settings: Settings, bus: EventBus, broker: Broker, prices: ReadPrices = dict) -> Generator[None]:
    """Let others look, until the end of the block. No socket is opened unless a setting asks for it.

    `prices`: the broker's prices now, by name. What cannot be served is noted, and the desk goes on without it.
    """
    with contextlib.ExitStack() as closing:
        offers = {offer.name: offer for offer in broker.offers}

        def tell() -> dict[str, Any]:
            rows = [asdict(one) | {"tier": offers[one.name].tier, "precision": offers[one.name].precision}
                    for one in broker.services.state()]  # fmt: skip
            return {"command": " ".join(sys.argv[1:3]), "backends": rows, "prices": dict(prices())}

        status = StatusFile(settings.status_dir, tell)
        closing.callback(status.close)
        for asked in (
            settings.metrics_port and serve_metrics(settings.metrics_port, broker.services),
            settings.otlp_endpoint and send_spans(settings.otlp_endpoint),
        ):
            if asked:
                try:
                    closing.callback(bus.subscribe(closing.enter_context(asked)))
                except InputError as error:
                    bus.emit(Noted(level="warning", message=str(error)))
        yield

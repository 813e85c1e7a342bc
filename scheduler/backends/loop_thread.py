"""An event loop on a thread of its own, for connections and engines that outlive a caller's loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from finllm.errors import BackendError

T = TypeVar("T")


class LoopThread:
    """Runs coroutines of callers from any loop, or from none, on one loop."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._calls: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work` on the thread's loop; cancelling this cancels it. Errors: BackendError once closed."""
        try:
            return await asyncio.wrap_future(self._submit(work))
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if self._closed and current is not None and not current.cancelling():
                raise self._is_closed() from None
            raise

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """As `call`, from code that is not asynchronous."""
        return self._submit(work).result()

    def close(self, last: Coroutine[Any, Any, None]) -> None:
        """Cancel the calls under way, await `last`, and end the thread. Closing again does nothing."""
        if self._closed:
            last.close()
            return
        self._closed = True
        asyncio.run_coroutine_threadsafe(self._end(last), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        if self._closed:
            work.close()
            raise self._is_closed()
        return asyncio.run_coroutine_threadsafe(self._kept(work), self._loop)

    async def _kept(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.current_task()
        assert task is not None
        self._calls.add(task)
        try:
            return await work
        finally:
            self._calls.discard(task)

    async def _end(self, last: Coroutine[Any, Any, None]) -> None:
        await _cancelled(self._calls.copy())
        await last
        await _cancelled(asyncio.all_tasks() - {asyncio.current_task()})
        await self._loop.shutdown_asyncgens()
        for _ in range(3):  # transports close their sockets in callbacks of their own
            await asyncio.sleep(0)

    def _is_closed(self) -> BackendError:
        return BackendError(f"{self._thread.name!r} is closed", fix="open the desk again")


async def _cancelled(tasks: set[asyncio.Task[Any]] | set[asyncio.Task[Any] | None]) -> None:
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)

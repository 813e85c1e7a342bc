"""Engines that work at once divide the cores; one that works alone has all of them."""

from __future__ import annotations

import threading
import time

import pytest

from finllm.scheduler.engine.cores import Cores


def test_one_that_works_alone_has_all_cores() -> None:
    cores = Cores(4)
    one, other = cores.seat(), cores.seat()
    one.works(True)
    with one as threads:
        assert threads == 4
    other.works(True)
    with one as threads, other as others:
        assert (threads, others) == (2, 2)
    other.works(False)
    with one as threads:
        assert threads == 4


@pytest.mark.parametrize(("count", "engines"), [(1, 2), (2, 3), (3, 2), (4, 4)])
def test_never_more_threads_than_cores(count: int, engines: int) -> None:
    cores = Cores(count)
    seats = [cores.seat() for _ in range(engines)]
    computing: list[int] = []
    most = 0
    lock = threading.Lock()

    def work(at: int) -> None:
        nonlocal most
        seats[at].works(True)
        for _ in range(30):
            with seats[at] as threads:
                with lock:
                    computing.append(threads)
                    most = max(most, sum(computing))
                time.sleep(0.0005)
                with lock:
                    computing.remove(threads)
        seats[at].works(False)

    threads = [threading.Thread(target=work, args=(at,)) for at in range(engines)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert 0 < most <= count

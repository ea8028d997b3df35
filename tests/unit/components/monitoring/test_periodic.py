"""Work that is repeated in a thread while a block runs."""

import threading

from waiting import LIMIT_S

from components.monitoring.periodic import periodically


def test_work_is_repeated_while_the_block_runs():
    calls, thrice = [], threading.Event()

    def work() -> None:
        calls.append(threading.current_thread().name)
        if len(calls) == 3:
            thrice.set()

    with periodically(work, 0.001, "mirror"):
        assert thrice.wait(LIMIT_S)
    ended = len(calls)
    assert set(calls) == {"mirror"}
    assert len(calls) == ended


def test_the_last_call_comes_after_the_block():
    order = []
    with periodically(lambda: order.append("call"), 3600, "mirror", at_end=True):
        order.append("block")
    assert order == ["block", "call"]


def test_a_block_that_fails_ends_the_calls_as_well():
    before = threading.active_count()
    try:
        with periodically(lambda: None, 0.001, "mirror"):
            raise KeyError
    except KeyError:
        pass
    assert threading.active_count() == before


def test_the_first_call_can_come_immediately():
    called = threading.Event()
    with periodically(called.set, 3600, "metrics", at_start=True):
        assert called.wait(60)

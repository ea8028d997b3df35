"""Work ahead of its use: order, exceptions, and an end when nobody listens any more."""

import threading

import pytest

from yolo_core.ahead import ahead, batched_while


def test_items_come_in_order_and_from_another_thread():
    threads = set()

    def items():
        for number in range(10):
            threads.add(threading.get_ident())
            yield number

    assert list(ahead(items(), 3)) == list(range(10))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_no_more_than_count_items_are_produced_ahead():
    produced = []
    taken = ahead((produced.append(number) or number for number in range(100)), 2)
    next(taken)
    taken.close()
    assert len(produced) <= 1 + 2


def test_an_exception_comes_where_its_item_would():
    def items():
        yield 1
        raise ValueError("two")

    taken = ahead(items())
    assert next(taken) == 1
    with pytest.raises(ValueError, match="two"):
        next(taken)


def test_batches_hold_equal_neighbours_only():
    words = ["a", "b", "cc", "dd", "ee", "f"]
    assert list(batched_while(words, 2, len)) == [["a", "b"], ["cc", "dd"], ["ee"], ["f"]]

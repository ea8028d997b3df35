"""Work done ahead of its use, by one thread."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
_END = object()


def ahead(items: Iterable[T], count: int = 2, initializer: Callable[[], None] | None = None) -> Iterator[T]:
    """The items in order, produced by one thread that is up to `count` ahead and ends with this iterator.

    initializer: called first in that thread. An exception of `items` is raised where its item would be.
    """
    source = iter(items)
    waiting: deque[Future[T | object]] = deque()
    pool = ThreadPoolExecutor(1, "ahead", initializer)
    try:
        waiting.extend(pool.submit(next, source, _END) for _ in range(count))
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(pool.submit(next, source, _END))
            yield item  # pyright: ignore[reportReturnType] - anything but _END is an item
    finally:  # also when the iterator is abandoned
        pool.shutdown(wait=True, cancel_futures=True)


def batched_while(items: Iterable[T], count: int, same: Callable[[T], object]) -> Iterator[list[T]]:
    """Lists of up to `count` consecutive items for which `same` gives equal values."""
    for _, group in itertools.groupby(items, same):
        while batch := list(itertools.islice(group, count)):
            yield batch

"""A connection to Ray for the length of a block: the cluster of RAY_ADDRESS, else a local one."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from components import telemetry


@contextmanager
def connected(cpus: int, *, show_workers: bool) -> Iterator[None]:
    """Connect, and disconnect at the end; an existing connection is used and stays.

    cpus: processors that a local cluster offers at least; the machine's when those are more.
    show_workers: whether the workers' output appears here.
    """
    telemetry.turn_off()
    import ray

    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    own = {} if address else {"include_dashboard": False, "num_cpus": max(cpus, os.cpu_count() or 1)}
    ray.init(address or "local", log_to_driver=show_workers, logging_level=logging.ERROR, **own)
    try:
        yield
    finally:
        ray.shutdown()

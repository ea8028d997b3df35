"""What the tests of the pipeline share."""

import functools
import inspect
from collections.abc import Iterator
from types import SimpleNamespace

import pytest


@pytest.fixture(autouse=True, scope="session")
def _callers_without_their_sources() -> Iterator[None]:
    """KFP looks up a caller's name with `inspect.stack()`, which reads the source of every frame.

    In a test process, with its deep stack and thousands of modules, that takes seconds per pipeline.
    """
    from kfp.dsl import pipeline_task

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline_task, "inspect", SimpleNamespace(stack=functools.partial(inspect.stack, 0)))
        yield

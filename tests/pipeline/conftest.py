"""What the tests of the pipeline share."""

import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest


def _callers() -> list[tuple[None, None, None, str]]:
    """What KFP reads of `inspect.stack()`: the names of the two innermost callers."""
    frame = sys._getframe(1)
    assert frame.f_back
    return [(None, None, None, one.f_code.co_name) for one in (frame, frame.f_back)]


@pytest.fixture(autouse=True, scope="session")
def _callers_without_their_modules() -> Iterator[None]:
    """KFP looks up a caller's name with `inspect.stack()`, which looks for the module of every frame.

    In a test process, with its deep stack and thousands of modules, that takes seconds per pipeline.
    """
    from kfp.dsl import pipeline_task

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline_task, "inspect", SimpleNamespace(stack=_callers))
        yield

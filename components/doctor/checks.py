"""What a check of the doctor finds, and how checks run: in parallel, one line each."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    ok: bool
    message: str
    """What was found, as part of a line."""
    fix: str = ""
    """What to do if it is not `ok`."""


Check = tuple[str, Callable[[], Finding]]  # its name, and the check itself


def run(checks: Sequence[Check]) -> bool:
    """Run checks and print their findings in order; returns whether all passed."""
    passed = True
    with ThreadPoolExecutor() as pool:  # the slow ones import packages or wait for processes
        for name, finding in zip((name for name, _ in checks), pool.map(lambda c: _guarded(c[1]), checks), strict=True):
            mark = "ok  " if finding.ok else "FAIL"
            print(f"{mark} {name}: {finding.message}" + ("" if finding.ok else f"; {finding.fix}"), flush=True)
            passed &= finding.ok
    return passed


def _guarded(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:  # a check that crashes is a finding, too
        return Finding(
            False, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", "see above"
        )

"""Attempts at a transfer: what was damaged in transit is sent or fetched again."""

from collections.abc import Callable
from typing import TypeVar

from botocore.exceptions import (
    ClientError,
    FlexibleChecksumError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from botocore.parsers import ResponseParserError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from components.storage.client import code, is_transient
from components.storage.location import Location
from yolo_core.errors import TryAgain

ATTEMPTS = 5  # for transfers that broke off or arrived damaged
BACKOFF_S, MAX_BACKOFF_S = 0.5, 10.0

# Damaged in transit. The client retries refused requests, not those whose bytes went wrong. Headers have no checksum:
# a damaged one makes its reader fail with one of the last three.
_BROKEN = (
    FlexibleChecksumError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
    ResponseParserError,
    ValueError,
    KeyError,
)
_BROKEN_CODES = {"BadDigest", "SignatureDoesNotMatch", "XAmzContentSHA256Mismatch"}
STALE_UPLOAD = {"NoSuchUpload", "InvalidPart", "InvalidPartOrder", "EntityTooSmall", "InvalidRequest"}

R = TypeVar("R")


class Damaged(Exception):
    """The bytes that arrived differ from those sent, or the object changed during the transfer."""


def retry_damaged(location: Location, transfer: Callable[[], R]) -> R:
    """Retry, with backoff, what the client does not retry itself."""

    def attempt() -> R:
        try:
            return transfer()
        except _BROKEN as error:
            raise Damaged(str(error)) from None
        except ClientError as error:
            if code(error) in _BROKEN_CODES | STALE_UPLOAD:
                raise Damaged(str(error)) from None
            raise

    retrying = Retrying(
        retry=retry_if_exception(_may_be_damage),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential(BACKOFF_S, max=MAX_BACKOFF_S),
        reraise=True,
    )
    try:
        return retrying(attempt)
    except Damaged as error:
        raise TryAgain(f"{location}: {error}, in {ATTEMPTS} attempts; check the network") from None


def _may_be_damage(error: BaseException) -> bool:
    """A request with a damaged header is refused in many ways; the client has already retried transient errors."""
    return isinstance(error, Damaged) or (isinstance(error, ClientError) and not is_transient(error))

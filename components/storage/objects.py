"""An object as the store reports it."""

from dataclasses import dataclass
from typing import Any

from botocore.client import BaseClient
from botocore.exceptions import ClientError

from components.storage.client import code
from components.storage.location import Location


@dataclass(frozen=True)
class Object:
    """An object as the store reports it."""

    size: int
    """Size in bytes."""
    etag: str
    """MD5 (hex) unless the store encrypts; of content sent in parts see `components.storage.checksums.of_parts`."""
    sha256: str | None
    """SHA-256 (base64), likewise for parts; None if it was never given."""
    encrypted: bool
    """The ETag is no MD5 then."""

    @property
    def in_parts(self) -> bool:
        return "-" in self.etag

    @classmethod
    def of(cls, answer: dict[str, Any], size: int) -> "Object":
        encrypted = "SSECustomerAlgorithm" in answer or answer.get("ServerSideEncryption", "").startswith("aws:kms")
        return cls(size, answer["ETag"].strip('"'), answer.get("ChecksumSHA256"), encrypted)


def head(client: BaseClient, location: Location) -> Object | None:
    """The object there, or None."""
    try:
        answer = client.head_object(Bucket=location.bucket, Key=location.key, ChecksumMode="ENABLED")
    except ClientError as error:
        if code(error) == "404":
            return None
        raise
    return Object.of(answer, answer["ContentLength"])

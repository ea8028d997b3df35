"""Reads the small text files of a dataset as people's tools write them."""

from pathlib import Path

from components.datasets.image_check import LFS_POINTER, POINTER_ADVICE
from yolo_core.errors import UserError

BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")  # of UTF-16, in which PowerShell writes


class Pointer(Exception):
    """The file stands for another one; the message says how to get that."""


def read_lines(path: Path) -> list[str]:
    """The lines of a file, stripped. Raises UserError."""
    return [line.strip() for line in read(path).split("\n")]


def read(path: Path) -> str:
    """The text of a file, see `decoded`. Raises UserError."""
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: not a file")
    try:
        return decoded(path.read_bytes())
    except Pointer as error:
        raise UserError(f"{path}: {error}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read ({error}); save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from None


def decoded(data: bytes) -> str:
    r"""The text of UTF-8, or of UTF-16 with a byte order mark; lines end in "\n".

    Raises UnicodeDecodeError or Pointer.
    """
    if data.startswith(LFS_POINTER):
        raise Pointer(POINTER_ADVICE)
    text = data.decode("utf-16" if data.startswith(BYTE_ORDER_MARKS) else "utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n")

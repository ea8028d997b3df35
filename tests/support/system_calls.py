"""What a command and all its child processes ask of the network and write, as strace sees it: compiled code as well."""

import codecs
import ipaddress
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

NETWORK = ("connect", "sendto", "sendmsg", "sendmmsg")
FILES = (
    "open",
    "openat",
    "creat",
    "mkdir",
    "mkdirat",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "symlink",
    "truncate",
)
OPTIONS = ["-ff", "-y", "-qq", "--seccomp-bpf", "-s", "200", "-e", f"trace={','.join(NETWORK + FILES)}"]
RESOLVERS = ("systemd/resolve", "mdnsd", "avahi")  # sockets of services that look up names for others

_CALL = re.compile(r"(\w+)\((.*)")
_SOCKET = re.compile(r"\d+")
_ADDRESS = re.compile(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"')
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
_OPENED = re.compile(r"O_(?:WRONLY|RDWR|CREAT).* = \d+<(/[^>]*)>")


@dataclass
class Trace:
    """names: looked up. addresses: other than loopback, connected or sent to. written: files and folders."""

    code: int
    output: str
    names: set[str] = field(default_factory=set)
    addresses: set[str] = field(default_factory=set)
    written: set[Path] = field(default_factory=set)

    def written_outside(self, *folders: Path) -> list[str]:
        """What was written that is in none of the folders, devices and compiled Python aside."""
        inside = (*folders, Path("/dev"), Path("/proc"))
        return sorted(
            str(path)
            for path in self.written
            if "__pycache__" not in path.parts and not any(path.is_relative_to(folder) for folder in inside)
        )


def why_not() -> str | None:
    """Why nothing can be traced here."""
    if not shutil.which("strace"):
        return "no strace; apt install strace"
    probe = subprocess.run(["strace", *OPTIONS, "-o", "/dev/null", "true"], capture_output=True, text=True)
    return f"strace: {probe.stderr.strip()}" if probe.returncode else None


def traced(command: Sequence[str], folder: Path, variables: Mapping[str, str], logs: Path) -> Trace:
    """Run a command in a folder with these variables; strace writes a file per thread into `logs`."""
    logs.mkdir()
    done = subprocess.run(
        ["strace", *OPTIONS, "-o", str(logs / "thread"), *command],
        cwd=folder,
        env=dict(variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    trace = Trace(done.returncode, done.stdout)
    for log in logs.iterdir():
        with log.open(encoding="utf-8", errors="replace") as lines:
            _read(trace, lines)
    return trace


def _read(trace: Trace, lines: Iterable[str]) -> None:
    """Add the calls of one thread."""
    asking: set[str] = set()  # its sockets to name servers
    for line in lines:
        if call := _CALL.match(line):
            name, arguments = call.groups()
            if name in NETWORK:
                _note_network(trace, asking, arguments)
            elif " = -1 " not in arguments:
                _note_file(trace, name, arguments)


def _note_network(trace: Trace, asking: set[str], arguments: str) -> None:
    socket = _SOCKET.match(arguments)
    number = socket[0] if socket else ""
    if "sa_family=" in arguments:
        asking.discard(number)
        if "htons(53)" in arguments:
            asking.add(number)
        elif address := _ADDRESS.search(arguments):
            _note_address(trace, address[1] or address[2])
        trace.names |= {f"by way of {name}" for name in RESOLVERS if name in arguments}
    if number in asking:
        trace.names |= {name for text in _TEXT.findall(arguments) if (name := _question(text))}


def _note_address(trace: Trace, text: str) -> None:
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if not address.is_loopback:
        trace.addresses.add(str(address))


def _question(text: str) -> str:
    """The name in a DNS query (RFC 1035, 4.1): 12 bytes of header, then labels with their lengths up to an empty one.

    text: as strace prints it, with bytes that are no characters in octal.
    """
    data, labels, at = codecs.decode(text, "unicode_escape").encode("latin-1"), [], 12
    while at < len(data) and data[at]:
        labels.append(data[at + 1 : at + 1 + data[at]].decode("latin-1"))
        at += 1 + data[at]
    return ".".join(labels)


def _note_file(trace: Trace, name: str, arguments: str) -> None:
    """A file opened for writing counts by the path of its descriptor, other calls by their absolute paths."""
    if not name.startswith("open"):
        trace.written |= {Path(text) for text in _TEXT.findall(arguments) if text.startswith("/")}
    elif opened := _OPENED.search(arguments):
        trace.written.add(Path(opened[1]))

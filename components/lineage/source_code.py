"""The code behind a stage, found by analysing it: the closure of its imports, and a digest of that code.

The closure follows every import of the project's own modules, at any depth and also inside functions; imports under
TYPE_CHECKING are never executed and do not count. It stops at the `BOUNDARIES`: modules behind one cannot change a
result. The digest is over syntax trees, so comments, docstrings and layout may change freely. `dvc.yaml` and the
lineage of registered models both use it.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeGuard

ROOT = Path(__file__).parents[2]
OWN = ("components", "yolo_core")  # packages whose modules can be behind a stage


@dataclass(frozen=True)
class Boundary:
    """Where the closure stops."""

    importer: str
    """Importing package; "" for any."""
    imported: str
    """Imported package that is not followed."""
    reason: str
    """Why nothing behind it can change a result."""


BOUNDARIES = (
    Boundary("", "components.monitoring", "progress passes each item on unchanged, metrics and the log are only sent"),
    Boundary("", "components.telemetry", "it only turns usage statistics off"),
    Boundary("", "components.storage", "it moves bytes and verifies their SHA-256"),
    Boundary("components.training", "components.tracking", "a training records its curves and reads nothing back"),
    Boundary(
        "components.stages.train", "components.tracking", "it only checks whether records are still queued for MLflow"
    ),
)


def closure(*roots: str, root: Path = ROOT) -> frozenset[Path]:
    """The files behind the modules `roots`, relative to the project folder `root`, including packages' __init__ files.

    Raises FileNotFoundError for a root that is not a module of the project.
    """
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        module = waiting.pop()
        if module in found:
            continue
        found.add(module)
        waiting += [name for name in _imports(module, root) if not _is_behind_boundary(module, name)]
    return frozenset(_file(module, root).relative_to(root) for module in found)


def digest(files: Iterable[Path], root: Path = ROOT) -> str:
    """SHA-256 (hex) of the names and the code of these files of the project; the same for any Python version."""
    lines = (f"{_tree_digest((root / path).read_bytes())}  {path.as_posix()}\n" for path in sorted(files))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _is_behind_boundary(importer: str, imported: str) -> bool:
    return any(_is_within(importer, one.importer) and _is_within(imported, one.imported) for one in BOUNDARIES)


def _is_within(module: str, package: str) -> bool:
    return not package or module == package or module.startswith(f"{package}.")


def _file(module: str, root: Path) -> Path:
    """The file of a module or package; FileNotFoundError if there is none."""
    if found := _found(module, root):
        return found
    raise FileNotFoundError(f"{module}: no module of the project")


def _found(module: str, root: Path) -> Path | None:
    base = root.joinpath(*module.split("."))
    return next((path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()), None)


def _imports(module: str, root: Path) -> Iterator[str]:
    """The project's own modules that are executed when this one, or a function in it, runs."""
    path = _file(module, root)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    yield from _packages(module)
    for name in _imported_names(path.read_bytes(), package):
        if name.partition(".")[0] in OWN and _found(name, root):
            yield name
            yield from _packages(name)


def _packages(module: str) -> Iterator[str]:
    """The packages around a module: importing it executes their __init__ as well."""
    while module := module.rpartition(".")[0]:
        yield module


@cache
def _imported_names(source: bytes, package: str) -> tuple[str, ...]:
    """Dotted names that a source imports: modules, and names that may be a module or a member of one."""
    names: list[str] = []
    for node in _executed(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return tuple(names)


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all its descendants, without the bodies of `if TYPE_CHECKING`."""
    yield node
    for child in node.orelse if _is_for_typing(node) else ast.iter_child_nodes(node):
        yield from _executed(child)


def _is_for_typing(node: object) -> TypeGuard[ast.If]:
    """Whether this is `if TYPE_CHECKING`, whose body is never executed."""
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


@cache
def _tree_digest(source: bytes) -> str:
    return hashlib.sha256("".join(_dump(ast.parse(source))).encode("utf-8", "surrogatepass")).hexdigest()


def _dump(value: object) -> Iterator[str]:
    """A syntax tree as text, without docstrings and empty fields, in which Python versions differ."""
    if _is_for_typing(value):
        yield from _dump(value.orelse)
    elif isinstance(value, ast.AST):
        yield f"({type(value).__name__}"
        for name, field in ast.iter_fields(value):
            if name == "body" and isinstance(field, list):
                field = _without_docstring(field)
            if isinstance(value, ast.JoinedStr):
                field = [part for part in field if not _is_text(part, "")]  # Python 3.12 adds some
            if field is not None and field != [] and name not in ("kind", "type_comment", "type_ignores"):
                yield f" {name}="
                yield from _dump(field)
        yield ")"
    elif isinstance(value, list):
        yield "["
        for item in value:
            yield from _dump(item)
        yield "]"
    else:
        yield repr(value)


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    """A block without its string statements: docstrings, including those of fields."""
    return [node for node in body if not (isinstance(node, ast.Expr) and _is_text(node.value))]


def _is_text(node: ast.AST, text: str | None = None) -> bool:
    """Whether a node is a string constant, equal to `text` if given."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and text in (None, node.value)

"""A Terraform configuration as data: what a folder declares, and what its expressions refer to.

Reads syntax only (python-hcl2) and evaluates nothing, which is enough to find references to names that do not exist.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import hcl2
from hcl2.rules.abstract import LarkElement, LarkRule, LarkToken
from hcl2.rules.base import AttributeRule, BlockRule
from hcl2.rules.expressions import ExprTermRule
from hcl2.rules.for_expressions import ForIntroRule
from hcl2.rules.indexing import (
    AttrSplatExprTermRule,
    FullSplatExprTermRule,
    GetAttrExprTermRule,
    GetAttrRule,
    IndexExprTermRule,
)
from hcl2.rules.literal_rules import IdentifierRule
from hcl2.rules.strings import HeredocTemplateRule

MODES = ("resource", "data", "ephemeral")
_CHAINS = (GetAttrExprTermRule, IndexExprTermRule, AttrSplatExprTermRule, FullSplatExprTermRule)
_BUILT_IN = {"each", "count", "path", "self", "terraform", "run"}

T = TypeVar("T")


@dataclass(frozen=True)
class Reference:
    """`module.network.subnets["a"]` in main.tf has the path ("module", "network", "subnets"), without indices."""

    path: tuple[str, ...]
    file: str

    def __str__(self) -> str:
        return f"{self.file}: {'.'.join(self.path)}"


@dataclass(frozen=True)
class Config:
    """One folder of Terraform files. Blocks are python-hcl2's dictionaries, with unquoted names."""

    folder: Path
    variables: dict[str, dict[str, Any]]
    outputs: dict[str, dict[str, Any]]
    locals: dict[str, Any]
    modules: dict[str, dict[str, Any]]
    providers: list[tuple[str, dict[str, Any]]]
    objects: dict[tuple[str, str, str], dict[str, Any]]  # (mode, kind, name) -> body
    references: tuple[Reference, ...]
    bound: frozenset[str]  # names of for expressions and dynamic blocks
    heredocs: tuple[str, ...]

    def callee(self, module: str) -> "Config":
        """The configuration that a module block calls."""
        return load((self.folder / unquoted(self.modules[module]["source"])).resolve())


@cache
def load(folder: Path) -> Config:
    """Read every .tf file of a folder. Raises the parser's error for invalid HCL."""
    parsed, trees = [], []
    for path in sorted(folder.glob("*.tf")):
        tree = hcl2.parses(path.read_text(encoding="utf-8"))
        parsed.append(hcl2.serialize(tree))
        trees.append((path.name, tree))
    nodes = [node for _, tree in trees for node in _walk(tree)]
    return Config(
        folder=folder,
        variables=_named(parsed, "variable"),
        outputs=_named(parsed, "output"),
        locals={name: value for file in parsed for block in file.get("locals", []) for name, value in _plain(block)},
        modules=_named(parsed, "module"),
        providers=[(unquoted(n), b) for file in parsed for block in file.get("provider", []) for n, b in block.items()],
        objects={
            (mode, unquoted(kind), unquoted(name)): body
            for file in parsed
            for mode in MODES
            for block in file.get(mode, [])
            for kind, named in block.items()
            for name, body in named.items()
            if name != "__is_block__"
        },
        references=tuple(
            Reference(path, file) for file, tree in trees for path in references(tree) if path[0] not in _BUILT_IN
        ),
        bound=frozenset(name for node in nodes for name in _binds(node)),
        heredocs=tuple(_text(node) for node in nodes if isinstance(node, HeredocTemplateRule)),
    )


def references(node: LarkElement) -> Iterator[tuple[str, ...]]:
    """Every chain of two or more names below a node, such as ("var", "name")."""
    if isinstance(node, _CHAINS):
        path, indices = _unwind(node)
        if len(path) > 1:
            yield path
        for index in indices:
            yield from references(index)
    elif isinstance(node, AttributeRule) and _text(node.children[0]) == "ignore_changes":
        return  # names of the resource's own arguments
    elif isinstance(node, LarkRule):
        for child in node.children:
            if child is not None:
                yield from references(child)


def arguments(body: dict[str, Any]) -> dict[str, list[dict[str, Any]] | None]:
    """What a block's body sets: name -> the bodies of its blocks (dynamic ones too), or None for an attribute."""
    found: dict[str, list[dict[str, Any]] | None] = {}
    for name, value in _plain(body):
        if name == "dynamic":
            for label, dynamic in (pair for block in value for pair in _plain(block)):
                found[unquoted(label)] = [*(found.get(unquoted(label)) or []), *dynamic["content"]]
        elif isinstance(value, list) and value and all("__is_block__" in item for item in value):
            found[name] = [*(found.get(name) or []), *value]
        else:
            found[name] = None
    return found


def unquoted(text: object) -> str:
    """python-hcl2 keeps the quotes of strings."""
    return str(text).removeprefix('"').removesuffix('"')


def expression(text: object) -> str:
    """`${map(string)}` -> `map(string)`: python-hcl2 wraps expressions like this."""
    return re.sub(r"^\$\{(.*)\}$", r"\1", str(text), flags=re.DOTALL)


def _named(parsed: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {unquoted(name): body for file in parsed for block in file.get(kind, []) for name, body in _plain(block)}


def _plain(body: Mapping[str, T]) -> list[tuple[str, T]]:
    return [(name, value) for name, value in body.items() if not name.startswith("__")]


def _walk(node: LarkElement) -> Iterator[LarkElement]:
    yield node
    if isinstance(node, LarkRule):
        for child in node.children:
            if child is not None:
                yield from _walk(child)


def _unwind(node: LarkElement) -> tuple[tuple[str, ...], list[LarkElement]]:
    """The names of a chain from its root, and the expressions in its brackets. No names if the root is not a name."""
    if isinstance(node, _CHAINS):
        inner, *rest = [child for child in node.children if child is not None]
        path, indices = _unwind(inner)
        for part in rest:
            names = [each for each in _walk(part) if isinstance(each, GetAttrRule)]
            if isinstance(node, IndexExprTermRule):
                indices.append(part)
            elif path:
                path += tuple(_text(name).lstrip(".") for name in names)
        return path, indices
    if isinstance(node, ExprTermRule):
        children = [child for child in node.children if isinstance(child, LarkRule)]
        if len(children) == 1:
            return _unwind(children[0])
    if isinstance(node, IdentifierRule):
        return (_text(node),), []
    return (), [node]


def _binds(node: LarkElement) -> Iterator[str]:
    if isinstance(node, ForIntroRule):
        yield from (_text(child) for child in node.children if isinstance(child, IdentifierRule))
    if isinstance(node, BlockRule):
        labels = [_text(child) for child in node.children[:2] if child is not None]
        if labels[0] == "dynamic":
            yield unquoted(labels[1])


def _text(node: LarkElement) -> str:
    return "".join(str(each.value) for each in _walk(node) if isinstance(each, LarkToken))

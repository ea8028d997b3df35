"""The code behind a stage: what belongs to it, what its digest notices, and what it does not."""

import ast
import shutil
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from components.dvc_file import compressed
from components.lineage.record import BEHIND_DATA, BEHIND_WEIGHTS
from components.lineage.source_code import ROOT, closure, digest
from components.stage_table import STAGES, get_stage

TYPING = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
CHECKED = ("train", "evaluate", "promote")


def module(stage: str) -> str:
    return f"components.stages.{stage}"


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Path]:
    """Writes a project of a few modules; `a/b.py="..."` by keyword `a__b`."""

    def write(**files: str) -> Path:
        for name, text in files.items():
            path = tmp_path.joinpath(*name.replace("INIT", "__init__").split("__in__")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for folder in {path.parent for path in tmp_path.rglob("*.py")} - {tmp_path}:
            (folder / "__init__.py").touch()
        return tmp_path

    return write


def names(files: frozenset[Path]) -> set[str]:
    return {path.as_posix() for path in files} - {"components/__init__.py", "yolo_core/__init__.py"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from yolo_core.b import thing", {"yolo_core/b.py"}),
        ("from yolo_core import b", {"yolo_core/b.py"}),
        ("import yolo_core.b", {"yolo_core/b.py"}),
        ("import yolo_core.b as x, os", {"yolo_core/b.py"}),
        ("def f():\n    from yolo_core.b import thing", {"yolo_core/b.py"}),
        ("from components.c import d", {"components/c.py", "yolo_core/b.py"}),  # through another module
        ("from . import c", {"components/c.py", "yolo_core/b.py"}),
        ("from .c import d", {"components/c.py", "yolo_core/b.py"}),
        (f"{TYPING}    import yolo_core.b", set()),
        (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    pass\nelse:\n    import yolo_core.b",
            {"yolo_core/b.py"},
        ),
        ("from components.monitoring import progress", set()),  # behind a boundary
        ("import numpy, pipelines", set()),  # not ours, or above the stages
    ],
)
def test_imports_are_followed_wherever_they_are(project: Callable[..., Path], text: str, found: set[str]) -> None:
    root = project(
        components__in__a=text,
        components__in__c="import yolo_core.b\nd = 1",
        components__in__monitoring__in__progress="import yolo_core.b",
        yolo_core__in__b="thing = 1",
    )
    assert names(closure("components.a", root=root)) == {"components/a.py"} | found


def test_packages_around_a_module_run_as_well(project: Callable[..., Path]) -> None:
    root = project(components__in__a="import yolo_core.deep.b", yolo_core__in__deep__in__b="", yolo_core__in__c="")
    (root / "yolo_core/deep/__init__.py").write_text("import yolo_core.c")
    assert names(closure("components.a", root=root)) == {
        "components/a.py",
        "yolo_core/deep/__init__.py",
        "yolo_core/deep/b.py",
        "yolo_core/c.py",
    }


def test_a_folder_left_behind_by_a_package_is_not_a_package(project: Callable[..., Path]) -> None:
    root = project(components__in__a="import yolo_core.b", yolo_core__in__b="")
    (root / "yolo_core" / "b" / "__pycache__").mkdir(parents=True)
    assert names(closure("components.a", root=root)) == {"components/a.py", "yolo_core/b.py"}


def test_a_root_that_is_not_a_module_is_refused() -> None:
    with pytest.raises(FileNotFoundError, match=r"components\.stages\.nowhere"):
        closure("components.stages.nowhere")


SAME = "def f(a, b=2):\n    return a + b\n"


@pytest.mark.parametrize(
    "text",
    [
        '"""About."""\n' + SAME,
        "# Why.\n" + SAME,
        "def f(\n    a,\n    b=2,\n):\n\n    return (a\n        + b)  # sum\n",
        'def f(a, b=2):\n    """Sum."""\n    return a + b\n',
    ],
)
def test_comments_docstrings_and_layout_do_not_count(project: Callable[..., Path], text: str) -> None:
    path = Path("components/a.py")
    before = digest([path], project(components__in__a=SAME))
    assert digest([path], project(components__in__a=text)) == before


def test_imports_for_types_alone_do_not_count(project: Callable[..., Path]) -> None:
    path = Path("components/a.py")
    before = digest([path], project(components__in__a=f"{TYPING}    from x import A\n{SAME}"))
    assert digest([path], project(components__in__a=f"{TYPING}    from x import B\n{SAME}")) == before


@pytest.mark.parametrize(
    "text",
    [
        "def f(a, b=3):\n    return a + b\n",
        "def f(a, b=2):\n    return a - b\n",
        "def f(a, b='2'):\n    return a + b\n",
    ],
)
def test_constants_operators_and_types_count(project: Callable[..., Path], text: str) -> None:
    path = Path("components/a.py")
    before = digest([path], project(components__in__a=SAME))
    assert digest([path], project(components__in__a=text)) != before


def test_the_digest_is_the_same_for_every_python() -> None:
    """A literal: a change of it makes every registered model look as if its code had changed."""
    source = Path(__file__).parent / "sample_source.py"
    assert digest([source.relative_to(ROOT)]) == "7f29af67a8d3e5be3600cfb1255a65d45527ab77c18cb4a19748f58baa5de27d"


# --- Mutations of the project itself ----------------------------------------------------------------------------------


def changed_meaning(text: str) -> str:
    """The source with one constant or operator changed; if it has neither, with one more statement."""
    tree = ast.parse(text)
    documentation = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in documentation and isinstance(node.value, int | float):
            node.value = node.value + 1
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Lt | ast.Gt | ast.Eq | ast.Is):
            node.ops[0] = ast.NotEq()
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mult | ast.Sub):
            node.op = ast.Pow()
        else:
            continue
        return ast.unparse(tree)
    return f"{text}\nADDED = 1\n"


def changed_words(text: str) -> str:
    """The source with one more comment and blank line, another first docstring, and another layout."""
    tree = ast.parse(text)
    if ast.get_docstring(tree) is not None:
        tree.body = tree.body[1:]
    return f'"""Other words."""\n\n# A comment.\n{ast.unparse(tree)}\n'


MODULES = sorted(set().union(*(closure(module(stage)) for stage in CHECKED)))


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_one_change_of_meaning_changes_the_digest_and_none_of_words_does(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / path
    copy.parent.mkdir(parents=True)

    def digest_of(text: str) -> str:
        copy.write_text(text)
        return digest([path], tmp_path)

    text = (ROOT / path).read_text()
    before = digest_of(text)
    assert digest_of(changed_meaning(text)) != before
    assert digest_of(changed_words(text)) == before


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with made-up results of all stages that DVC takes for current."""
    root = tmp_path_factory.mktemp("project")
    for name in ("components", "yolo_core"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, root / name)
    with chdir(root), Repo.init(no_scm=True) as repo:
        for stage in repo.index.stages:
            for out in stage.outs:
                made = Path(out.fs_path)
                if made.suffix:
                    made.parent.mkdir(parents=True, exist_ok=True)
                    made.write_text(stage.addressing)
                else:
                    made.mkdir(parents=True, exist_ok=True)
                    (made / "file").write_text(stage.addressing)
    for model in yaml.safe_load((root / "params.yaml").read_text())["models"]:  # what others read of whole folders
        for path in ("outputs/anchors", "outputs/export"):
            (root / path).mkdir(parents=True, exist_ok=True)
            (root / path / f"{model}.json").write_text("{}")
    with chdir(root), Repo() as repo:
        repo.commit(force=True)
        assert repo.status() == {}
    return root


def stages_with(path: Path) -> set[str]:
    """The stages whose results a module is behind, and those that depend on its package."""
    found = set()
    for stage in STAGES:
        files = closure(*map(module, (stage.name, *stage.records)))
        declared = [Path(entry) for entry in compressed(files)]
        assert all(any(one.is_relative_to(entry) for entry in declared) for one in files)
        if any(path.is_relative_to(entry) for entry in declared):
            found.add(stage.name)
    return found


@pytest.mark.slow
def test_dvc_lists_exactly_the_stages_behind_whose_results_a_module_is(repository: Path) -> None:
    for path in MODULES:
        assert listed(repository, path) == stages_with(path), path


@pytest.mark.parametrize(
    "path",
    [
        "components/params.py",
        "components/stages/promote.py",
        "yolo_core/compiled.py",
        "yolo_core/device.py",
        "yolo_core/hyperparameters.py",
        "yolo_core/losses/__init__.py",
    ],
)
def test_dvc_notices_a_change_in_what_decides_a_result(repository: Path, path: str) -> None:
    found = listed(repository, Path(path))
    assert found == stages_with(Path(path))
    assert "promote" in found or "train" in found


def listed(root: Path, path: Path) -> set[str]:
    """The stages that `dvc status` lists after one change of meaning in a module."""
    file = root / path
    text = file.read_text()
    file.write_text(changed_meaning(text))
    try:
        with chdir(root), Repo() as repo:
            return {name.partition("@")[0].rpartition(":")[2] for name in repo.status()}
    finally:
        file.write_text(text)


def test_the_stages_behind_weights_and_data_are_those_of_the_table() -> None:
    def behind(name: str) -> set[str]:
        return {name}.union(*(behind(given.stage) for given in get_stage(name).inputs.values()))

    assert behind("train") == {*BEHIND_WEIGHTS, *BEHIND_DATA}
    assert behind(*BEHIND_DATA) == set(BEHIND_DATA)

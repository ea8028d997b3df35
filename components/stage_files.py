"""Generates the files derived from the stage table: `python -m components.stage_files [--check]`.

Writes `dvc.yaml` and the table in docs/stages.md. With --check nothing is written; a stale file is reported in one line
with exit code 1.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import yaml

from components import yaml_text
from components.lineage.source_code import ROOT, closure
from components.stage_row import MODEL, Stage
from components.stage_table import STAGES, get_stage, input_path
from components.workspace import DATA, OUTPUTS

DVC_MODEL = "${item.model}"
BEGIN, END = "<!-- stages: written by `make generated` -->", "<!-- end of stages -->"

HEADER = """\
# The stages of params.yaml, once each or once per model. `dvc repro` runs what changed, `dvc dag` draws the graph.
#
# `make generated` writes this file from components/stage_table.py: paths, parameters and outputs follow from the rows,
# the code that a stage depends on from the imports of its module.
#
# Your own data (prepare.source other than digits): add its folder, or s3://bucket/prefix, to the deps of `prepare`, so
# that DVC notices changes in it (a branch of source dvc moves unnoticed); likewise the file of train.weights to the
# deps of `evolve` and `train`, unless #sha256=HEX names its content. Otherwise
# `dvc repro --force --single-item prepare` looks again.
#
# Experiments in separate folders (`dvc exp run --temp`, `--queue`) need MLFLOW_TRACKING_URI: without it each has
# its own registry beside its copy of this file.
"""
LOSSES = """\
plots:
  # One line per model in `y` compares them.
  - Training loss:
      x: epoch
      y:
        outputs/train/${models[0]}/curves.csv: [box, obj, cls]
      y_label: loss
"""


def dvc_yaml(stages: Iterable[Stage] = STAGES, root: Path = ROOT) -> str:
    """The text of `dvc.yaml`; dependencies that the user added to the present one stay."""
    added = _added_deps(root / "dvc.yaml")
    return "\n".join([HEADER, "stages:", *(_dvc_stage(stage, root, added(stage.name)) for stage in stages), LOSSES])


def _added_deps(path: Path) -> Callable[[str], list[str]]:
    """Dependencies of each stage in a `dvc.yaml` that are neither code nor results: the user's own data."""
    stages = yaml_text.parse(path.read_text(encoding="utf-8"), str(path))["stages"] if path.exists() else {}
    ours = ("components", "yolo_core", str(DATA), str(OUTPUTS))
    return lambda name: [dep for dep in stages.get(name, {}).get("deps", []) if not str(dep).startswith(ours)]


def _dvc_stage(stage: Stage, root: Path, added: list[str]) -> str:
    """One stage as YAML, indented below `stages:`."""
    each = {"matrix": {"model": "${models}"}} if stage.per_model else {}
    code = compressed(closure(*(f"components.stages.{name}" for name in (stage.name, *stage.records)), root=root), root)
    params = [*stage.params, *(key for name in stage.records for key in get_stage(name).params)]
    read = [input_path(stage, given).replace(MODEL, DVC_MODEL) for given in stage.inputs.values()]
    content = {
        "desc": f"{stage.summary}.",
        **each,
        "cmd": f"scaled-yolov4 {stage.command}" + (f" --model {DVC_MODEL}" if stage.per_model else ""),
        "deps": [*code, *read, *added],
        "params": _without_doubles(params),
        **_outputs(stage),
    }
    text = yaml.dump({stage.name: content}, Dumper=_Indented, sort_keys=False, width=120)
    if stage.result.persist:
        text = text.replace("  outs:\n", f"  outs:\n    # persist: {stage.result.persist}\n")
    return "".join(f"  {line}\n" if line else "\n" for line in text.splitlines())


def _without_doubles(keys: Iterable[str]) -> list[str]:
    """The keys once each, without those of a section that is listed entirely."""
    found = dict.fromkeys(keys)
    return [key for key in found if key.partition(".")[0] == key or key.partition(".")[0] not in found]


class _Indented(yaml.SafeDumper):
    """Indents lists below their key."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=False)


def _outputs(stage: Stage) -> dict[str, list[object]]:
    """The lists `outs`, `metrics` and `plots` of a stage."""
    path = stage.result.path.replace(MODEL, DVC_MODEL)
    if not stage.result.files:
        return {"outs": [{path: {"persist": True}} if stage.result.persist else path]}
    lists: dict[str, list[object]] = {}
    for file in stage.result.files:
        axes = {key: text.replace(MODEL, DVC_MODEL) for key, text in file.axes.items()}
        name = f"{path}/{file.name}"
        lists.setdefault(file.role, []).append({name: axes} if axes else name)
    return lists


def compressed(files: Iterable[Path], root: Path = ROOT) -> list[str]:
    """The files, with a package in place of its files where half of its modules or more are among them.

    DVC parses every entry several times in pure Python: with each file by itself `dvc repro` takes three times as long.
    The registry's digest is over the files alone.
    """
    left = set(files)
    folders = []
    for folder in sorted({parent for path in left for parent in path.parents if len(parent.parts) == 2}):
        below = {path.relative_to(root) for path in (root / folder).rglob("*.py")}
        if len(below) > 1 and 2 * len(below & left) >= len(below):
            folders.append(folder)
            left -= below
    return sorted(path.as_posix() for path in [*folders, *left])


def stages_page(page: str, stages: Iterable[Stage] = STAGES) -> str:
    """docs/stages.md with its table generated from the rows."""
    start, rest = page.split(BEGIN, 1)
    _, end = rest.split(END, 1)
    return f"{start}{BEGIN}\n{_table(stages)}\n{END}{end}"


def _table(stages: Iterable[Stage]) -> str:
    rows = [("stage", "does", "runs", "reads", "writes", "sections of params.yaml"), ("---",) * 6]
    for stage in stages:
        read = ", ".join(f"`{name}`" for name in dict.fromkeys(given.stage for given in stage.inputs.values()))
        sections = ", ".join(f"`{key}`" for key in dict.fromkeys(key.partition(".")[0] for key in stage.params))
        rows.append(
            (
                f"`{stage.command}`",
                f"{stage.summary}. {stage.details}".strip(),
                "per model" if stage.per_model else "once",
                read,
                f"`{stage.result.path.replace(MODEL, '<model>')}`",
                sections,
            )
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def files(root: Path = ROOT) -> Mapping[Path, str]:
    """The generated files and their text."""
    page = root / "docs" / "stages.md"
    return {root / "dvc.yaml": dvc_yaml(root=root), page: stages_page(page.read_text(encoding="utf-8"))}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m components.stage_files", description="Write dvc.yaml and the table in docs/stages.md."
    )
    parser.add_argument("--check", action="store_true", help="only check whether the committed files are current")
    given = parser.parse_args(arguments)
    stale = {path: text for path, text in files().items() if path.read_text(encoding="utf-8") != text}
    for path, text in stale.items():
        if given.check:
            print(f"{path}: stale; run `make generated` and commit the file", file=sys.stderr)
        else:
            path.write_text(text, encoding="utf-8")
    return 1 if given.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())

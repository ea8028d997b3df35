"""The text of `dvc.yaml`, which follows from the rows of the stage table.

There are two kinds. In a checkout of this repository each stage depends on the files of its code. In a project that
uses the installed package there are no such files: a first stage writes the parameters, with the package's defaults,
and a digest of each stage's code to a file whose keys the others depend on.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from components import yaml_text
from components.lineage.source_code import ROOT, closure, digest
from components.stage_row import MODEL, Stage
from components.stage_table import STAGES, get_stage, input_path
from components.workspace import DATA, OUTPUTS, PARAMS

DVC_MODEL = "${item.model}"

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
PROJECT_HEADER = """\
# The stages of this project. `dvc repro` runs what changed, `dvc dag` draws the graph.
#
# Written by `scaled-yolov4 init`. The stage `parameters` writes all parameters, those of params.yaml over the defaults
# of the installed package, and a digest of the code of each stage: a new version runs what it changes again.
#
# Experiments in separate folders (`dvc exp run --temp`, `--queue`) need MLFLOW_TRACKING_URI: without it each has
# its own registry beside its copy of this file.
"""
CODE = "code"  # key of the digests
RESOLVED = OUTPUTS / "parameters.yaml"
RESOLVE = {
    "parameters": {
        "desc": "Write all parameters and a digest of the code of each stage.",
        "cmd": f"scaled-yolov4 parameters --out {RESOLVED}",
        "deps": [str(PARAMS)],
        "always_changed": True,
        "outs": [{str(RESOLVED): {"cache": False}}],
    }
}
LOSSES = """\
plots:
  # One line per model in `y` compares them.
  - Training loss:
      x: epoch
      y:
        outputs/train/${models[0]}/curves.csv: [box, obj, cls]
      y_label: loss
"""


def of_checkout(stages: Iterable[Stage] = STAGES, root: Path = ROOT) -> str:
    """The text of a checkout's `dvc.yaml`; dependencies that the user added to the present one stay."""
    added = _added_deps(root / "dvc.yaml")

    def written(stage: Stage) -> str:
        code = compressed(closure(*stage.modules, root=root), root)
        return _stage(stage, [*code, *_read(stage), *added(stage.name)], params_of(stage))

    return "\n".join([HEADER, "stages:", *map(written, stages), LOSSES])


def of_project(data: Mapping[str, Sequence[str]], stages: Iterable[Stage] = STAGES) -> str:
    """The text of the `dvc.yaml` of a project that uses the installed package.

    data: for each stage that reads any, the files and folders from outside the pipeline.
    """

    def written(stage: Stage) -> str:
        keys = [f"{CODE}.{stage.name}", *params_of(stage)]
        return _stage(stage, [*_read(stage), *data.get(stage.name, [])], [{str(RESOLVED): keys}])

    return "\n".join([PROJECT_HEADER, "stages:", _indented(RESOLVE), *map(written, stages), LOSSES])


def _added_deps(path: Path) -> Callable[[str], list[str]]:
    """Dependencies of each stage in a `dvc.yaml` that are neither code nor results: the user's own data."""
    stages = yaml_text.parse(path.read_text(encoding="utf-8"), str(path))["stages"] if path.exists() else {}
    ours = ("components", "yolo_core", str(DATA), str(OUTPUTS))
    return lambda name: [dep for dep in stages.get(name, {}).get("deps", []) if not str(dep).startswith(ours)]


def code_digests() -> dict[str, str]:
    """SHA-256 (hex) of the code behind each stage."""
    return {stage.name: digest(closure(*stage.modules)) for stage in STAGES}


def params_of(stage: Stage) -> list[str]:
    """The parameters that a stage depends on, with those of the stages that it records."""
    return _without_doubles([*stage.params, *(key for name in stage.records for key in get_stage(name).params)])


def _read(stage: Stage) -> list[str]:
    """The results of other stages that a stage reads."""
    return [input_path(stage, given).replace(MODEL, DVC_MODEL) for given in stage.inputs.values()]


def _stage(stage: Stage, deps: Sequence[str], params: Sequence[object]) -> str:
    """One stage as YAML, indented below `stages:`."""
    content = {
        "desc": f"{stage.summary}.",
        **({"matrix": {"model": "${models}"}} if stage.per_model else {}),
        "cmd": f"scaled-yolov4 {stage.command}" + (f" --model {DVC_MODEL}" if stage.per_model else ""),
        **({"deps": list(deps)} if deps else {}),
        "params": list(params),
        **_outputs(stage),
    }
    text = _indented({stage.name: content})
    if stage.result.persist:
        text = text.replace("    outs:\n", f"    outs:\n      # persist: {stage.result.persist}\n")
    return text


def _indented(content: Mapping[str, object]) -> str:
    text = yaml.dump(content, Dumper=_Indented, sort_keys=False, width=120)
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

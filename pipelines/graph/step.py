"""The step of a stage: run the stage's command on the step's artifacts, and show its results.

The stage table says which artifact belongs to which option.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from kfp import dsl

from components.stage_row import Stage, dashed
from components.stage_table import get_stage
from pipelines.exit_codes import TRY_AGAIN
from pipelines.graph.artifacts import artifact_of
from pipelines.graph.outcome import note_failure
from pipelines.graph.page import show

WAITS_S = (30.0, 60.0)  # before each retry of a stage that ended with exit code 3
LINGERING_S = 5.0  # for a stage's last output; a process that it left behind may keep the pipe open

Given = dsl.Artifact | Sequence[dsl.Artifact]
A = TypeVar("A")


def run_step(
    name: str,
    *,
    params: dsl.Artifact,
    metrics: dsl.Metrics,
    report: dsl.HTML,
    model: str = "",
    confusion: dsl.ClassificationMetrics | None = None,
    **artifacts: Given,
) -> None:
    """Run a stage on its artifacts, by their names in the stage table, and fill those that describe its result."""
    stage = get_stage(name)
    result = artifacts[stage.result.artifact]
    assert isinstance(result, dsl.Artifact)
    options = stage_options(stage, model, artifacts, _path, out=result.path, work=str(work_folder(result)))
    run_stage(stage.command, params, **options)
    if confusion:
        matrix = Path(result.path, stage.result.confusion).read_text(encoding="utf-8")
        confusion.log_confusion_matrix(**json.loads(matrix))
    describe(stage, model, Path(result.path, stage.result.shown), result, metrics, report)


def stage_options(
    stage: Stage,
    model: str,
    artifacts: Mapping[str, A],
    locate: Callable[[A, str], str],
    *,
    out: str,
    work: str,
) -> dict[str, str]:
    """The options of a stage's command by name. locate: where a file of an artifact is; all of it for the file ""."""
    options = {"model": model} if stage.per_model else {}
    for option, given in stage.inputs.items():
        options[option] = locate(artifacts[artifact_of(stage, given)], given.file.format(model=model))
    return {**options, "out": out, **({"work": work} if stage.work else {})}


def flags(options: Mapping[str, object]) -> list[str]:
    """Options as words of a command line."""
    return [text for name, value in options.items() for text in (f"--{dashed(name)}", str(value))]


def describe(
    stage: Stage, model: str, shown: Path, result: dsl.Artifact, metrics: dsl.Metrics, report: dsl.HTML
) -> None:
    """Set the result's metadata, and show the file or folder `shown` as metrics and a page."""
    if stage.result.metadata:
        result.metadata.update(model=model, **stage.result.metadata)
    show(stage.title.format(model=model), shown, metrics, report)


def _path(artifact: Given, file: str) -> str:
    """A file of an artifact, or all of it if `file` is empty; for several artifacts a folder with an entry for each."""
    if isinstance(artifact, dsl.Artifact):
        return str(Path(artifact.path, file))
    folder = Path(tempfile.mkdtemp())
    for number, one in enumerate(artifact):
        (folder / str(number)).symlink_to(Path(one.path).absolute())
    return str(folder)


def work_folder(out: dsl.Artifact) -> Path:
    """Where a stage keeps unfinished work: beside its result, so that a retry on the same volume resumes it."""
    return Path(out.path).parent / "work"


def run_stage(stage: str, params: dsl.Artifact, *switches: str, **options: str | Path) -> None:
    """Run `scaled-yolov4 <stage> --params FILE --option value ... --flag ...`.

    The metadata of `params` are the environment variables that the run passes to each of its stages. Only a command
    that ends with exit code 3 is retried, with growing backoff. A failing command says why in its last line, and this
    process ends with the same exit code.
    """
    command = [sys.executable, "-m", "components.cli", stage, *flags({"params": params.path, **options}), *switches]
    environment = {**os.environ, **params.metadata}
    code, last = _run(command, environment)
    for wait in WAITS_S:
        if code != TRY_AGAIN:
            break
        print(f"{stage}: retrying in {wait:g} s", flush=True)
        time.sleep(wait)
        code, last = _run(command, environment)
    if code:
        note_failure(params, " ".join([stage, str(options.get("model", ""))]).strip(), last)
        sys.exit(code)


def _run(command: list[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """The command's exit code and the last line of its stderr, which is passed on as it comes."""
    last = [""]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, errors="replace")
    reader = threading.Thread(target=_pass_on, args=(process.stderr, last), daemon=True)
    reader.start()
    code = process.wait()
    reader.join(LINGERING_S)  # the pipe is left open: closing it would wait for the reader without a limit
    return (code if code >= 0 else 128 - code), last[0]  # after a signal, the code that a shell would give


def _pass_on(lines: Iterable[str], last: list[str]) -> None:
    for line in lines:
        sys.stderr.write(line)
        sys.stderr.flush()
        last[0] = line.strip() or last[0]

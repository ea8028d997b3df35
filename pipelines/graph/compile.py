"""Compile the pipeline into the committed YAML: `python -m pipelines.graph.compile [--check]`.

With --check nothing is written; a stale file is reported in one line with exit code 1. `scaled-yolov4 pipeline compile`
does the same with the options of `pipelines.graph.target`, for your own registry and GPUs.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from pipelines.graph.target import Target

COMPILED = Path(__file__).parents[1] / "scaled_yolov4_full.yaml"


def compiled(target: Target) -> str:
    """The pipeline as KFP YAML; deterministic."""
    from kfp import compiler

    from pipelines.graph.scaled_yolov4_full import scaled_yolov4_full

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, COMPILED.name)
        compiler.Compiler().compile(scaled_yolov4_full(target), str(path))  # pyright: ignore[reportArgumentType]
        return path.read_text(encoding="utf-8")


def is_current(out: Path, target: Target) -> bool:
    """Whether `out` is what would be compiled now; prints one line if not."""
    if out.exists() and out.read_text(encoding="utf-8") == compiled(target):
        return True
    print(f"{out}: stale; run `python -m pipelines.graph.compile` and commit the file", file=sys.stderr)
    return False


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.graph.compile", description="Compile the pipeline for Kubeflow."
    )
    parser.add_argument("--check", action="store_true", help="only check whether the committed file is current")
    parser.add_argument("--out", type=Path, default=COMPILED, help="file to write or to check")
    given = parser.parse_args(arguments)
    if given.check:
        return 0 if is_current(given.out, Target()) else 1
    given.out.write_text(compiled(Target()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

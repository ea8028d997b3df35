"""Compile the pipeline into the YAML that is committed: `python -m pipelines.compile [--check]`.

With --check nothing is written: a stale file gives exit code 1 and one line.
For a registry or GPUs of your own: `python -m pipelines.compile --image IMAGE --gpus 1 --out mine.yaml`.
"""

import argparse
import sys
import tempfile
from pathlib import Path

COMPILED = Path(__file__).with_name("scaled_yolov4_full.yaml")


def compiled(image: str, gpus: int) -> str:
    """The pipeline as KFP's YAML; equal code gives equal text."""
    from kfp import compiler

    from pipelines.scaled_yolov4_full import scaled_yolov4_full

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, COMPILED.name)
        compiler.Compiler().compile(scaled_yolov4_full(image, gpus), str(path))  # pyright: ignore[reportArgumentType]
        return path.read_text(encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.compile", description="Compile the pipeline for Kubeflow."
    )
    parser.add_argument("--check", action="store_true", help="only tell whether the committed file is current")
    parser.add_argument("--out", type=Path, default=COMPILED, help="file to write or to check")
    parser.add_argument("--image", default="scaled-yolov4:latest", help="the project's image")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs of each step that can use one")
    given = parser.parse_args(arguments)
    text = compiled(given.image, given.gpus)
    if not given.check:
        given.out.write_text(text, encoding="utf-8")
        return 0
    if given.out.exists() and given.out.read_text(encoding="utf-8") == text:
        return 0
    print(f"{given.out}: stale; run `python -m pipelines.compile` and commit the file", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

"""Run the whole pipeline on this machine without a cluster: `python -m pipelines.graph.run_local --help`.

KFP's local runner executes the steps as subprocesses of this Python; their artifacts go below --root.
MLflow, Ray and S3 are configured as for the stages themselves (MLFLOW_TRACKING_URI and so on).
"""

import argparse
import sys
import warnings
from pathlib import Path

from components import telemetry
from components.workspace import PARAMS
from yolo_core.errors import UserError

ROOT = Path("local_outputs")
REWRITTEN = "python3"  # KFP's local runner replaces this text everywhere, also in paths and parameters


def run(params_yaml: str, overrides: list[str], root: Path, *, force: bool = False) -> Path:
    """Run the pipeline and return the folder of its artifacts, with one subfolder per step.

    Raises UserError for text that the runner would garble, RuntimeError naming a step that failed.
    """
    if REWRITTEN in f"{root.absolute()} {params_yaml} {overrides}":
        raise UserError(f"{root}, or a parameter, contains {REWRITTEN!r}, which KFP's local runner rewrites; rename it")
    from kfp import local

    from pipelines.graph.scaled_yolov4_full import scaled_yolov4_full
    from pipelines.graph.target import Target

    warnings.filterwarnings("ignore", message="(?s).*(non-Python base image|no effect in the current local runner)")
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(root))
    scaled_yolov4_full(Target(retries=0))(params_yaml=params_yaml, overrides=overrides, force=force)
    return max(root.glob("scaled-yolov4-full-*"), key=lambda folder: folder.stat().st_mtime)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.graph.run_local", description="Run the whole pipeline on this machine."
    )
    parser.add_argument("--params", type=Path, default=PARAMS, help="parameter file")
    parser.add_argument("-S", "--set", action="append", default=[], metavar="KEY=VALUE", help="change one parameter")
    parser.add_argument("--force", action="store_true", help="train from scratch, even if nothing changed")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of the artifacts")
    given = parser.parse_args(arguments)
    telemetry.turn_off()
    try:
        folder = run(given.params.read_text(encoding="utf-8"), given.set, given.root, force=given.force)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:  # the step itself has printed why
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"artifacts: {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

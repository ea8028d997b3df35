"""`make bench`: every row in turn, each in its own process; then the page's tables.

A row that fails, for example because the photographs of coco128 are missing, does not stop the others.
"""

import subprocess
import sys

from components import telemetry

ROWS = (
    *("loader", "train_step", "evaluate", "nms", "scoring", "anchors", "inference", "predict"),
    *("startup", "growth", "profile"),
)


def main() -> None:
    telemetry.turn_off()
    failed = []
    for row in ROWS:
        print(f"== {row}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{row}"], check=False).returncode:
            failed.append(row)
    subprocess.run([sys.executable, "-m", "benchmarks.page"], check=True)
    if failed:
        raise SystemExit(f"error: these rows failed and keep their earlier figures: {', '.join(failed)}")


if __name__ == "__main__":
    main()

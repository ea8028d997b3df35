"""`make bench`: every row, one after the other, each in a process of its own; then the page's tables."""

import subprocess
import sys

ROWS = ("loader", "train_step", "evaluate", "nms", "scoring", "anchors", "inference", "startup", "growth", "profile")


def main() -> None:
    for row in ROWS:
        print(f"== {row}", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{row}"], check=True)
    subprocess.run([sys.executable, "-m", "benchmarks.page"], check=True)


if __name__ == "__main__":
    main()

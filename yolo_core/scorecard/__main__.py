"""`python -m yolo_core.scorecard [--check]` writes docs/scorecard.md.

With --check nothing is written; if the file is stale, prints one line and exits with code 1.
"""

import argparse
import sys
from pathlib import Path

from yolo_core.scorecard.page import page

PAGE = Path(__file__).parents[2] / "docs" / "scorecard.md"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m yolo_core.scorecard", description="Write docs/scorecard.md.")
    parser.add_argument("--check", action="store_true", help="only check whether the committed page is current")
    parser.add_argument("--out", type=Path, default=PAGE, help="file to write or to check")
    given = parser.parse_args(arguments)
    text = page()
    if not given.check:
        given.out.write_text(text, encoding="utf-8")
        return 0
    if given.out.exists() and given.out.read_text(encoding="utf-8") == text:
        return 0
    print(f"{given.out}: stale; run `python -m yolo_core.scorecard` and commit the file", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

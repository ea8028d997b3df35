"""Generates the files derived from the stage table: `python -m components.stage_files [--check]`.

Writes `dvc.yaml` and the table in docs/stages.md. With --check nothing is written; a stale file is reported in one line
with exit code 1.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from components import dvc_file
from components.lineage.source_code import ROOT
from components.stage_row import MODEL, Stage
from components.stage_table import STAGES

BEGIN, END = "<!-- stages: written by `make generated` -->", "<!-- end of stages -->"


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
    return {root / "dvc.yaml": dvc_file.of_checkout(root=root), page: stages_page(page.read_text(encoding="utf-8"))}


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

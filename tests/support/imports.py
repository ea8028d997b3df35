"""What a piece of code imports, which determines how long a command takes to start."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# typer and what it imports
TYPER = {
    "typer",
    "click",
    "rich",
    "shellingham",
    "annotated_doc",
    "typing_extensions",
    "markdown_it",
    "mdurl",
    "pygments",
}
LIST = "print(*sorted({name.split('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)))\n"
OWN = {"components", "pipelines", "yolo_core"}


def run_command(module: str, app: str, *words: str) -> tuple[str, set[str]]:
    """What a command of a typer app prints in a separate process, and the third-party packages that it imported."""
    code = f"import sys, {module} as c\ntry: c.{app}({list(words)})\nexcept SystemExit: pass\n{LIST}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    output, _, names = done.stdout.rstrip("\n").rpartition("\n")
    return output, {name for name in names.split() if not name.startswith("_")} - OWN

"""Plots are drawn off screen, whatever backend the environment names."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, sys
from pathlib import Path
from components.reports import fitness_plot, plots
figure, axes = plots.new_figure(2, 2)
axes.plot([0, 1], [0, 1])
plots.save_figure(figure, Path("plot.png"))
fitness_plot.plot_fitness([], Path("fitness.png"))
print(os.environ["MPLBACKEND"])
"""


@pytest.mark.slow
def test_a_notebooks_backend_is_not_used(tmp_path: Path):
    backend = "module://matplotlib_inline.backend_inline"  # what Jupyter sets; the module is not installed here
    path = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "MPLBACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{backend}\n"
    assert (tmp_path / "plot.png").stat().st_size > 500
    assert (tmp_path / "fitness.png").stat().st_size > 500

"""The commands `scaled-yolov4 pipeline ...`, run in the test's own process."""

from pathlib import Path

from kfp_server import KfpServer
from typer.testing import CliRunner, Result

from pipelines.cli import stages
from pipelines.graph.compile import COMPILED

ROOT = Path(__file__).parents[2]
PARAMS = ROOT / "params.yaml"


def pipeline(server: KfpServer, *arguments: str) -> Result:
    """A command in the test's own process: importing kfp takes two seconds."""
    return CliRunner().invoke(stages, ["pipeline", *arguments, "--host", server.url], prog_name="scaled-yolov4")


def submitted(server: KfpServer, *arguments: str, graph: Path = COMPILED) -> Result:
    given = ["--graph", str(graph), "--params", str(PARAMS), "--no-follow"]
    return pipeline(server, "submit", *given, *arguments)


def scheduled(server: KfpServer, cron: str = "0 0 2 * * *", *arguments: str, graph: Path = COMPILED) -> Result:
    given = ["--graph", str(graph), "--params", str(PARAMS), "--cron", cron]
    return pipeline(server, "schedule", *given, *arguments)


def changed(tmp_path: Path) -> Path:
    """The compiled pipeline with another image."""
    path = tmp_path / "changed.yaml"
    path.write_text(COMPILED.read_text().replace("scaled-yolov4:latest", "registry/other:2"))
    return path


def error_line(result: Result) -> str:
    """The one line of an error."""
    lines = [line for line in result.stderr.splitlines() if line]
    assert len(lines) == 1, result.output
    return lines[0]

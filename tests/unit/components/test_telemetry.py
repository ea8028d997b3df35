"""Usage statistics are off in everything the project starts, and importing it changes nothing."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from components import telemetry

HOSTED = ("CI", "GITHUB_ACTIONS", "JENKINS_URL", "PYTEST_CURRENT_TEST")  # where MLflow would send nothing anyway


def _run(script: str, cwd: Path | None = None, **variables: str) -> str:
    """What a fresh interpreter without the variables prints."""
    env = {name: value for name, value in os.environ.items() if name not in (*telemetry.OFF, *HOSTED)}
    env |= {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **variables}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    return subprocess.run(command, cwd=cwd, env=env, check=True, capture_output=True, text=True).stdout


def test_an_import_leaves_the_environment_alone():
    script = """
        import os
        before = dict(os.environ)
        import components, components.cli.main, components.tracking.runs, components.training.ray_cluster
        print(os.environ == before)
        import components.stages.prepare, components.stages.train, components.stages.retrain
        changed = {name for name, value in os.environ.items() if before.get(name) != value}
        print(changed - {"LD_LIBRARY_PATH"})  # which OpenCV changes
    """
    assert _run(script) == "True\nset()\n"


def test_what_the_user_has_set_is_kept():
    script = """
        import os, sys
        from components import telemetry
        telemetry.turn_off()
        print({name: os.environ[name] for name in telemetry.OFF} == telemetry.OFF | {"RAY_USAGE_STATS_ENABLED": "1"})
        print(sys.modules["openvino_telemetry"])
    """
    assert _run(script, RAY_USAGE_STATS_ENABLED="1") == "True\nNone\n"


def test_the_image_says_the_same():
    dockerfile = (Path(__file__).parents[3] / "Dockerfile").read_text()
    assert [name for name, value in telemetry.OFF.items() if f" {name}={value}" not in dockerfile] == []


@pytest.mark.slow
def test_onnx_runtime_is_silent_as_a_library(tmp_path: Path):
    """At import it would write an identity below ~/.cache/Microsoft and look up a host."""
    script = """
        import os
        from pathlib import Path
        from yolo_core.deploy.onnx import OnnxPredictor, export_onnx
        from yolo_core.models import build_model
        from yolo_core.models.fuse import fuse
        model = fuse(build_model("yolov4-tiny", 1, width=0.125))
        export_onnx(model, Path("m.onnx"), classes=["one"], size=64, opset=17)
        OnnxPredictor(Path("m.onnx"), threads=1)
        print(os.environ["ORT_DISABLE_TELEMETRY"], [str(path) for path in Path.home().rglob("*")])
    """
    home = tmp_path / "home"
    home.mkdir()
    given = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "OMP_NUM_THREADS": "1"}
    assert _run(script, cwd=tmp_path, **given) == "1 []\n"


@pytest.mark.slow
def test_mlflow_is_silent_without_the_command_line(tmp_path):
    script = """
        from components.tracking import connection
        connection.connect()
        from mlflow.telemetry import get_telemetry_client
        print(get_telemetry_client())
    """
    assert _run(script, MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/mlflow.db") == "None\n"


@pytest.mark.slow
def test_ray_is_silent_without_the_command_line_and_keeps_to_loopback():
    """Ray's reporter is a process that asks the metadata services of clouds even when it reports nothing."""
    script = """
        from pathlib import Path
        from components.training.ray_cluster import connected
        with connected(1, show_workers=False):
            import ray
            from ray._common.usage.usage_lib import usage_stats_enabled
            print(usage_stats_enabled(), ray.util.get_node_ip_address())
            session = ray._private.worker._global_node.get_session_dir_path()
            started = [path.read_text(errors="replace") for path in Path("/proc").glob("[0-9]*/cmdline")]
            print([words for words in started if session in words and "UsageStatsHead" in words])
    """
    nowhere = {"HOME": f"{os.devnull}/home"}  # where Ray cannot keep the token of its clusters
    assert _run(script, **nowhere) == "False 127.0.0.1\n[]\n"

"""The registered champion behind `mlflow models serve`."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stage_outputs import MODEL, Outputs, load_params, make_dataset, make_outputs
from waiting import LIMIT_S, until_healthy

from components.stages import promote, register
from yolo_core.data.image import load_image

pytestmark = pytest.mark.slow
EVERYTHING = {"conf": 0.001}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outputs]:
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.chdir(folder)
        made = make_outputs(folder / "outputs", make_dataset(folder / "data"))
        register.run(load_params(), model=MODEL, **made.paths)
        promote.run(load_params(), model=MODEL, registered=made.registered, data=made.data, out=made.promoted)
        yield made


@pytest.fixture(scope="module")
def address(outputs: Outputs) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"models:/scaled-yolov4-{MODEL}@champion"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", uri, "--env-manager", "local", "-p", str(port)]
    log = outputs.folder / "serve.log"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it starts uvicorn by name
    with log.open("w") as file:
        server = subprocess.Popen(
            command, stdout=file, stderr=file, env={**os.environ, "PATH": path}, start_new_session=True
        )
    try:
        until_healthy(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(LIMIT_S)


def ask(address: str, **payload: Any) -> Any:
    request = urllib.request.Request(address, json.dumps(payload).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
        return json.load(answer)["predictions"]


def test_served_champion_answers_with_boxes(outputs: Outputs, address: str):
    image = sorted((outputs.data / "images" / "val").iterdir())[0]
    text = base64.b64encode(image.read_bytes()).decode()
    pixels = load_image(image).tolist()
    one = ask(address, inputs=text, params=EVERYTHING)
    assert len(one) == 1
    assert set(one[0][0]) == {"x1", "y1", "x2", "y2", "score", "class_id", "class_name"}
    assert ask(address, inputs=pixels, params=EVERYTHING) == one
    assert ask(address, inputs=[text, text], params=EVERYTHING) == one * 2
    assert ask(address, instances=[text, text], params=EVERYTHING) == one * 2
    assert ask(address, dataframe_records=[{"image": text}, {"image": pixels}], params=EVERYTHING) == one * 2
    assert ask(address, dataframe_split={"columns": ["image"], "data": [[text]]}, params=EVERYTHING) == one


def test_served_champion_refuses_what_is_not_an_image(address: str):
    with pytest.raises(urllib.error.HTTPError) as raised:
        ask(address, inputs="not base64!")
    assert raised.value.code == 400
    assert "give an encoded image" in raised.value.read().decode()

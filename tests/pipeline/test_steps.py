"""What a pipeline step does besides its stage: parameters in, exit code and artifacts out."""

import json
import math
from pathlib import Path

import pytest
import yaml
from kfp import dsl

from components import parameter_file
from pipelines.graph import run_local
from pipelines.graph.page import numbers, page, show
from pipelines.graph.parameters import write_params
from pipelines.graph.step import run_stage

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "params.yaml").read_text()


def artifact(path: Path) -> dsl.Artifact:
    return dsl.Artifact(uri=str(path))


def test_numbers_of_a_document() -> None:
    document = {"model": "m", "AP": 0.5, "images": 3, "plain": {"AP50": 1, "none": None}, "list": [1], "bad": math.nan}
    assert dict(numbers(document)) == {"AP": 0.5, "images": 3.0, "plain.AP50": 1.0}


def test_long_tables_stay_in_their_file(tmp_path: Path) -> None:
    document = {"files": dict.fromkeys(map(str, range(101)), 1), "classes": dict.fromkeys(map(str, range(100)), 1)}
    assert len(dict(numbers(document))) == 100
    assert "101 entries" in page("Dataset", document, [])


def test_a_page_shows_text_lists_and_pictures_in_one_file(tmp_path: Path) -> None:
    picture = tmp_path / "curve.png"
    picture.write_bytes(b"\x89PNG")
    text = page("Speed of <m>", {"decision": "hold", "rows": [{"p50": 1.23456789}, {"p50": 2}]}, [picture])
    assert "<h1>Speed of &lt;m&gt;</h1>" in text
    assert "<th>decision</th><td>hold</td>" in text
    assert "<td>1.23457</td>" in text  # six digits
    assert "<td>2</td>" in text
    assert "data:image/png;base64,iVBORw==" in text  # base64 of 89 50 4E 47


def test_show_reads_json_and_yaml(tmp_path: Path) -> None:
    for name, text in (("figures.json", json.dumps({"AP": 0.25})), ("figures.yaml", "AP: 0.25\n")):
        (tmp_path / name).write_text(text)
        metrics, report = dsl.Metrics(uri=str(tmp_path / "m")), dsl.HTML(uri=str(tmp_path / "report"))
        show("Title", tmp_path / name, metrics, report)
        assert metrics.metadata == {"AP": 0.25}
        assert "0.25" in (tmp_path / "report").read_text()


def test_show_puts_the_files_of_a_folder_under_their_names(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"boxes": 7, "chosen": "fitted"}))
    metrics, report = dsl.Metrics(uri=str(tmp_path / "m")), dsl.HTML(uri=str(tmp_path / "report"))
    show("Anchors", tmp_path, metrics, report)
    assert metrics.metadata == {"a.boxes": 7, "b.boxes": 7}
    assert "fitted" in (tmp_path / "report").read_text()


def test_the_written_parameters_are_those_given(tmp_path: Path) -> None:
    out = tmp_path / "params"
    models = write_params(TEXT, ["train.epochs=3"], ["yolov4-tiny", "yolov7-x"], artifact(out))
    assert models == ["yolov4-tiny", "yolov7-x"]
    expected = parameter_file.load(ROOT / "params.yaml", ["train.epochs=3", "models=[yolov4-tiny, yolov7-x]"])
    assert parameter_file.load(out).digest() == expected.digest()


def test_without_a_text_the_parameters_of_the_working_folder_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({**yaml.safe_load(TEXT), "seed": 7}))
    monkeypatch.chdir(tmp_path)
    write_params("", [], [], artifact(tmp_path / "out"))
    assert parameter_file.load(tmp_path / "out").seed == 7


def test_a_wrong_parameter_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        write_params(TEXT, ["train.epochs=-1"], [], artifact(tmp_path / "out"))
    assert ended.value.code == 2
    assert "train.epochs = -1" in capsys.readouterr().err


def test_a_failing_stage_gives_its_line_and_its_exit_code(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = yaml.safe_load(TEXT)
    text["prepare"] |= {"source": "coco-dir", "location": str(tmp_path / "nowhere")}
    (tmp_path / "params").write_text(yaml.safe_dump(text))
    with pytest.raises(SystemExit) as ended:
        run_stage("prepare", artifact(tmp_path / "params"), out=tmp_path / "data")
    assert ended.value.code == 2
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "nowhere" in last


@pytest.mark.full
def test_a_local_run_names_the_step_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--params", str(ROOT / "params.yaml"), "-S", "train.epochs=-1", "--root", "artifacts"]
    assert run_local.main(arguments) == 1
    captured = capfd.readouterr()
    assert "train.epochs = -1" in captured.out
    assert captured.err.strip().splitlines()[-1].startswith("error: Pipeline")
    assert "parameters" in captured.err


def test_a_folder_that_the_runner_would_garble_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "python3.11"
    assert run_local.main(["--params", str(ROOT / "params.yaml"), "--root", str(root)]) == 2
    assert "python3" in capsys.readouterr().err

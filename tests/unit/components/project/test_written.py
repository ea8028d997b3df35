"""The texts of a project's files."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from components import yaml_text
from components.project import written
from components.project.proposal import Choice, values

KEYS = st.sampled_from(
    ["project", "seed", "prepare.location", "train.size", "train.hyp.lr0", "train.weights", "models"]
)
TEXTS = st.text(max_size=9)
VALUES = st.one_of(
    st.integers(), st.booleans(), st.floats(0, 1), TEXTS, st.lists(TEXTS), st.dictionaries(TEXTS, TEXTS, min_size=1)
)
REASONS = st.text("abc :#'\"", max_size=20)


@given(st.lists(st.builds(Choice, KEYS, VALUES, REASONS), unique_by=lambda choice: choice.key))
def test_the_parameters_are_read_as_they_were_chosen(choices: list[Choice]) -> None:
    """Whatever a folder is called: no, 010, a: b, #1."""
    text = written.params_text(choices)
    assert yaml_text.parse(text, "params.yaml") == (values(choices) or None)


def test_parameters_stand_in_the_order_of_the_defaults_beside_their_reasons() -> None:
    choices = [Choice("train.size", 416, "small boxes"), Choice("train.epochs", 9, ""), Choice("project", "birds", "x")]
    assert written.params_text(choices).removeprefix(written.PARAMS_HEADER) == (
        "project: birds                  # x\ntrain:\n  size: 416                     # small boxes\n  epochs: 9\n"
    )


def test_dvc_watches_the_data_and_the_weights_and_takes_parameters_with_the_defaults() -> None:
    stages = yaml.safe_load(written.dvc_text(["../photos"], "start.safetensors"))["stages"]
    assert stages["parameters"]["always_changed"] is True
    assert stages["prepare"]["deps"] == ["../photos"]
    read = {name: stage.get("deps", []) for name, stage in stages.items()}
    assert [name for name, deps in read.items() if "start.safetensors" in deps] == ["evolve", "train"]
    for name, stage in stages.items():
        if name != "parameters":
            (listed,) = stage["params"]
            (keys,) = listed.values()
            assert keys[0] == f"code.{name}"
    code = [dep for deps in read.values() for dep in deps if dep.startswith(("components", "yolo_core"))]
    assert code == [], "an installed package has no such files"


def test_what_was_ignored_stays_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".gitignore").write_text("*.tmp\n/data/\n")
    text = written.ignore_text()
    assert text.startswith("*.tmp\n/data/\n/outputs/\n")
    Path(".gitignore").write_text(text)
    assert written.ignore_text() == text


def test_the_changes_are_shown_as_a_diff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a").write_text("one\ntwo\n")
    lines = written.changes({Path("a"): "one\n2\n", Path("b"): "new\n"})
    assert [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")] == ["-two", "+2", "+new"]
    assert written.changes({Path("a"): "one\ntwo\n"}) == []

"""YAML is read as DVC reads it, keys stand once, and what is written is read back."""

from contextlib import suppress
from pathlib import Path

import pytest
from dvc.utils.serialize import load_yaml
from hypothesis import example, given
from hypothesis import strategies as st

from components import parameter_file as parameters
from components import yaml_text
from yolo_core.errors import UserError

ROOT = Path(__file__).parents[3]
SCALARS = [
    "010", "0o10", "0x10", "09", "1_000", "1e3", "1e-3", "-.5", "5.", "yes", "no", "on", "Off", "y", "true", "True",
    "null", "~", "1:30", "190:20:30", "2024-01-01", ".inf", "'010'", '"no"', "!!int 010", "1.5e3", "+1", "0.1.2",
]  # fmt: skip
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS
TREES = st.recursive(LEAVES, lambda part: st.lists(part, max_size=3) | st.dictionaries(TEXTS, part, max_size=3))


@pytest.mark.parametrize("scalar", SCALARS)
def test_a_scalar_is_what_dvc_takes_it_for(scalar: str, tmp_path: Path):
    file = tmp_path / "params.yaml"
    file.write_text(f"key: {scalar}\n")
    ours, theirs = yaml_text.parse(file.read_text(), "params.yaml"), load_yaml(file)
    assert ours == theirs
    assert type(ours["key"]) is type(theirs["key"])


@pytest.mark.parametrize(
    ("text", "value"),
    [("010", 10), ("0o10", 8), ("no", "no"), ("1:30", "1:30"), ("1e-3", 0.001), ("'010'", "010"), ("", None)],
)
def test_numbers_and_words_are_those_of_version_1_2(text: str, value: object):
    assert yaml_text.parse(text, "f") == value


def test_overrides_are_read_like_the_file():
    assert parameters.load(ROOT / "params.yaml", ["train.epochs=010"]).train.epochs == 10
    with pytest.raises(UserError, match=r"train\.amp = .maybe."):
        parameters.load(ROOT / "params.yaml", ["train.amp=maybe"])


@pytest.mark.parametrize("name", ["params.yaml", "components/defaults.yaml", "params/coco.yaml", "dvc.yaml"])
def test_the_files_of_the_project_are_what_dvc_reads(name: str):
    assert yaml_text.parse((ROOT / name).read_text(), name) == load_yaml(ROOT / name)


def test_texts_stay_as_written():
    assert yaml_text.parse_texts("names: [no, 010, 1:30, null, ~, 1e3, '7', Yes]", "f") == {
        "names": ["no", "010", "1:30", "null", "~", "1e3", "7", "Yes"]
    }


@pytest.mark.parametrize("parse", [yaml_text.parse, yaml_text.parse_texts])
@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "a"),
        ("a:\n  b: 1\n  c: 2\n  'b': 3\n", 4, "b"),
        ("- {b: 1, b: 1}\n", 1, "b"),
        ("names:\n  0: cat\n  1: dog\n  0: bird\n", 4, "0"),
    ],
)
def test_a_key_that_stands_twice_is_refused_with_its_line(parse, text: str, line: int, key: str):
    with pytest.raises(UserError, match=rf"^data.yaml:{line}: key '?{key}'? stands twice") as raised:
        parse(text, "data.yaml")
    assert "\n" not in str(raised.value)


def test_a_merge_key_may_be_overridden():
    assert yaml_text.parse("base: &base {a: 1, b: 2}\nown: {<<: *base, b: 3}", "f")["own"] == {"a": 1, "b": 3}


@given(st.dictionaries(TEXTS, TREES, max_size=4))
@example({"revision": "1e3", "names": ["no", "010", "1:30", "null", "", "=", "\x85", "ü"], "gain": 1e-05})
def test_what_is_written_is_read_back(value: dict[str, object]):
    assert yaml_text.parse(yaml_text.dump(value), "f") == value


@given(TEXTS | st.text("&*!?:-[]{}<>=|%@`'\"\n 0a", max_size=30))
def test_any_text_is_read_or_refused_in_one_line(text: str):
    for parse in (yaml_text.parse, yaml_text.parse_texts):
        with suppress(UserError):  # whose message is one line in any case
            parse(text, "f")

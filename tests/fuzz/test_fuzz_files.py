"""Hostile parameters, ledgers, manifests and archives: refused in one line, or no harm done."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hostile import TEXTS, damaged_bytes, damaged_json, damaged_tree, fuzz, outcome
from hypothesis import strategies as st

from components.datasets import difference as dataset_diff
from components.datasets import manifest
from components.datasets.box_check import CheckedBoxes
from components.datasets.folder import building
from components.datasets.sources.archive import extract
from components.datasets.split_check import CheckedSplit
from components.evolution.ledger import Ledger, Record, opened
from components.parameter_file import load
from components.params import Params
from yolo_core.errors import UserError
from yolo_core.evolution import Individual, Mutation, propose
from yolo_core.progress import silent

PARAMS = Path(__file__).parents[2] / "params.yaml"
PLAIN = yaml.safe_load(PARAMS.read_text())


# --- params.yaml


@fuzz(
    "params",
    st.tuples(
        damaged_tree(PLAIN).map(lambda tree: yaml.safe_dump(tree, allow_unicode=False).encode())
        | damaged_bytes(PARAMS.read_bytes()),
        st.lists(TEXTS.map(lambda text: f"train.epochs={text}") | TEXTS, max_size=1),
    ),
)
def test_params(case: tuple[bytes, list[str]], folder: Path) -> None:
    """A parameter file, with an override."""
    path = folder / "params.yaml"
    path.write_bytes(case[0])
    loaded = outcome(lambda: load(path, case[1]), folder)
    assert isinstance(loaded, Params | UserError)


LAUGHS = "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60))])


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000,
        "- " * 5000,
        LAUGHS,
        LAUGHS + "\ntrain: *a59",
        "a: &a [*a]",
        "seed: 2001-13-45",
        "seed: " + "9" * 5000,
        "? [a, b]\n: 1",
        "!!python/object/apply:os.system [touch ran]",
        "a: !!binary ====",
        "seed: !!int x",
    ],
    ids=lambda text: text[:20],
)
def test_params_that_demand_much(text: str, tmp_path: Path):
    path = tmp_path / "params.yaml"
    for content in (text, PARAMS.read_text() + "\n" + text):
        path.write_text(content)
        assert isinstance(outcome(lambda: load(path), tmp_path), UserError)


# --- ledgers

RECORDS = [
    Record(0, None, {"lr0": 0.01, "momentum": 0.9}, 0.2, 0.1, 0.3, 1.0, 1.0),
    Record(1, 0, {"lr0": 0.02, "momentum": 0.8}, 0.3, 0.2, 0.4, 1.0, 2.0),
    Record(2, None, {"lr0": 0.03, "momentum": 0.7}, 0.0, 0.0, 0.0, 1.0, 3.0, "ValueError: no"),
]


@st.composite
def damaged_ledger(draw: st.DrawFn) -> bytes:
    """A ledger in which a line or any bytes are damaged."""
    lines = [json.dumps({"digest": "d"}), *(json.dumps(record.__dict__) for record in RECORDS)]
    if draw(st.booleans()):
        return draw(damaged_bytes("\n".join([*lines, ""]).encode()))
    at = draw(st.integers(0, len(lines) - 1))
    damaged = draw(damaged_json(json.loads(lines[at])))
    before, after = ("".join(f"{line}\n" for line in part).encode() for part in (lines[:at], lines[at + 1 :]))
    return before + damaged + b"\n" + after


@fuzz("ledgers", damaged_ledger())
def test_ledgers(case: bytes, folder: Path) -> None:
    """A ledger that a search resumes from: what is read yields children and accepts another record."""
    path = folder / "ledger.jsonl"
    path.write_bytes(case)

    def act() -> dict[int, Record]:
        with opened(path, "d") as ledger:
            finished = [Individual(r.trial, r.hyp, r.fitness, r.reason is not None) for r in ledger.records.values()]
            start = RECORDS[0].hyp
            propose(finished, start, seed=0, trial=3, lag=1, mutation=Mutation())
            ledger.append(Record(3, 1, start, 0.1, 0.1, 0.1, 1.0, ledger.elapsed + 1))
        return reread(path)

    result = outcome(act, folder)
    assert isinstance(result, UserError) or result[3].fitness == 0.1


def reread(path: Path) -> dict[int, Record]:
    with opened(path, "d") as ledger:
        assert isinstance(ledger, Ledger)
        return ledger.records


# --- manifests


def a_manifest() -> dict[str, Any]:
    images = [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}]
    boxes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4], "area": 16, "iscrowd": 0}]
    splits = {name: CheckedSplit(images=images, boxes=CheckedBoxes(annotations=boxes)) for name in ("train", "val")}
    files = {"images/train/a.png": "0" * 64, "images/val/a.png": "1" * 64}
    return manifest.build({"kind": "digits"}, [{"id": 1, "name": "one"}], splits, files)


@fuzz("manifests", damaged_json(a_manifest()))
def test_manifests(case: bytes, folder: Path) -> None:
    """A manifest, as `retrain` compares it and as `prepare` finds it in the folder to replace."""
    path = folder / "out/manifest.json"
    path.parent.mkdir()
    path.write_bytes(case)
    (folder / "out/mine.txt").write_text("not of prepare")
    outcome(lambda: dataset_diff.compare(manifest.read(path), a_manifest()), folder)

    def replace() -> None:
        with building(folder / "out"):
            pass

    assert isinstance(outcome(replace, folder), UserError)
    assert (folder / "out/mine.txt").exists()


# --- archives

UP = ["../up.txt", "in/../../up.txt", "/tmp/up.txt", "in/..", "in\\..\\up", "C:/in/up", "./in/a", "other/a"]
ODD = ["in/" + "x" * 300, "in/a\0b", "in/\xed\xa0\x80", "in", "in/a.txt/b"]
NAMES = st.sampled_from(["in/a.txt", "in/b/c.txt", *UP, *ODD])
LINK = 0o120777 << 16


@st.composite
def hostile_zip(draw: st.DrawFn) -> bytes:
    """An archive of unusual names, links and bombs, sometimes damaged."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for _ in range(draw(st.integers(1, 4))):
            entry = zipfile.ZipInfo(draw(NAMES))
            entry.external_attr = draw(st.sampled_from([0, 0, 0, LINK, 0o010644 << 16]))
            content = draw(st.sampled_from([b"text", b"/etc", b"../..", b"", b"text", bytes(21 << 20)]))
            methods = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA]
            entry.compress_type = draw(st.sampled_from(methods)) if len(content) < 10 else zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    data = buffer.getvalue()
    return draw(damaged_bytes(data)) if draw(st.booleans()) else data


@pytest.mark.filterwarnings("ignore:Duplicate name")
@fuzz("archives", hostile_zip())
def test_archives(case: bytes, folder: Path) -> None:
    """A zip archive: everything is unpacked inside the allowed folder."""
    target = folder / "target"
    target.mkdir()
    (folder / "a.zip").write_bytes(case)
    outcome(lambda: extract(folder / "a.zip", target, ("in",), silent), folder)
    assert {path.name for path in folder.iterdir()} == {"target", "a.zip"}
    assert {path.name for path in target.iterdir()} <= {"in"}
    assert not any(path.is_symlink() for path in target.rglob("*"))

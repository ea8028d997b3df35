"""Training as a whole: exact resume, early ends, results, what is refused. On a few small pictures of digits."""

import contextlib
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_training
import torch
from processes import started
from small_training import MODEL, SIZE, STEPS, command, config, fitted, parameters, run
from waiting import LIMIT_S, until

from components.cli.stages import run_stage
from components.monitoring import training_log
from components.stages import train
from yolo_core.data.coco import load_split
from yolo_core.errors import TryAgain, UserError
from yolo_core.hyperparameters import Hyperparameters
from yolo_core.models import build_model, get_spec
from yolo_core.models.weights import load_detector, save_detector
from yolo_core.recipes import RECIPES
from yolo_core.train import EpochReport, EpochRow, Phase, checkpoint, fit, loop
from yolo_core.train.run import Run
from yolo_core.train.validation import epochs_without_gain


@pytest.fixture(scope="module")
def reports() -> list[EpochReport]:
    """What `undisturbed` reported of its epochs."""
    return []


@pytest.fixture(scope="module")
def undisturbed(project: Path, reports: list[EpochReport]) -> Any:
    """The result of a training in this process that ran from its start to its end."""
    return fitted(project, config(), on_report=reports.append)


class Stopped(Exception):
    pass


def stop_at(step: int):
    """A progress that fails when this many batches have been taken."""

    def progress(items: Any, label: str, total: int | None = None) -> Iterator[Any]:
        for done, item in enumerate(items):
            if done == step:
                raise Stopped
            yield item

    return progress


def equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


OTHER_WAY = {"multi_scale": True, "precision": "fp32", "loader_workers": 1}


@pytest.mark.parametrize("changes", [{}, pytest.param(OTHER_WAY, marks=pytest.mark.slow)])
def test_a_training_stopped_anywhere_ends_as_if_it_had_not_been(
    project: Path, tmp_path: Path, undisturbed: Any, changes: dict[str, Any]
) -> None:
    settings = config(**changes)
    whole = fitted(project, settings) if changes else undisturbed
    rows: list[dict[str, Any]] = []
    for step in (5, 6, 7):  # 5 in, then 6 and 7 further on
        with pytest.raises(Stopped):
            fitted(project, settings, work=tmp_path, on_epoch=rows.append, progress=stop_at(step))
    resumed = fitted(project, settings, work=tmp_path, on_epoch=rows.append)
    assert 0 < resumed.resumed_at < resumed.steps == STEPS
    assert equal(resumed.model, whole.model)
    assert resumed.rows == whole.rows
    assert resumed.best == whole.best
    assert all(row in whole.rows for row in rows)


def test_every_epoch_is_reported(undisturbed: Any, reports: list[EpochReport]) -> None:
    rows = undisturbed.rows
    assert [report.row for report in reports] == rows
    assert [report.before for report in reports] == [None, None, rows[1], rows[1], rows[3]]  # evaluated: 2, 4, 5
    assert reports[0].best is None
    assert reports[-1].best == undisturbed.best
    assert {(report.epochs, report.steps) for report in reports} == {(5, STEPS)}
    assert reports[-1].seconds_left == 0
    for earlier in reports[:-1]:
        assert earlier.seconds_left
        assert earlier.images_per_second
        assert earlier.memory_bytes > 1 << 20


@pytest.fixture
def counted_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on which each step takes a minute and everything else no time."""
    monkeypatch.setattr(Run, "seconds", property(lambda run: 60.0 * run.step))


def scored(monkeypatch: pytest.MonkeyPatch, *figures: float) -> None:
    """Let the evaluations find these AP and AP50, in order."""
    found = iter(figures)
    monkeypatch.setattr(loop, "evaluate", lambda run: (value := next(found), value))


def test_patience_ends_a_training_with_its_best_weights(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The best AP comes in epoch 1 and again in epoch 2, which is no better; in epoch 3 two epochs have passed.
    settings = config(phases=(*config().phases[:1], Phase(9, config().phases[1].hyp)), eval_every=1, patience=2)
    scored(monkeypatch, 0.2, 0.2, 0.1)
    whole = fitted(project, settings)
    assert (whole.ended_by, whole.ended_early, whole.steps, len(whole.rows)) == ("patience", True, 12, 3)
    assert (whole.best["epoch"], whole.best["AP"]) == (2, 0.2), "of equals the one that was trained longer"
    scored(monkeypatch, 0.2, 0.2, 0.1)
    with pytest.raises(Stopped):
        fitted(project, settings, work=tmp_path, progress=stop_at(9))
    resumed = fitted(project, settings, work=tmp_path)
    assert (resumed.resumed_at, resumed.ended_by, resumed.rows) == (8, "patience", whole.rows)
    assert equal(resumed.model, whole.model)
    again = fitted(project, settings, work=tmp_path)  # without another step or evaluation
    assert (again.resumed_at, again.ended_by, again.rows) == (12, "patience", whole.rows)
    assert equal(again.model, whole.model)


@pytest.mark.parametrize(
    ("figures", "since", "expected"),
    [
        ([0.1, 0.3, 0.2, 0.3], 0, 2),
        ([0.0, 0.0, 0.0], 0, 2),
        ([0.1, None, None, 0.2], 0, 0),
        ([0.5, None, None, 0.2], 0, 3),
        ([0.5, 0.2, 0.2, 0.2], 2, 2),
        ([None, None], 0, 0),
        ([], 0, 0),
    ],
    ids=["equal is no gain", "0 is no gain", "better", "not evaluated", "phase from epoch 2", "no AP", "no row"],
)
def test_epochs_without_gain(figures: list[float | None], since: int, expected: int) -> None:
    rows = [
        EpochRow(epoch=number, step=number, lr=0, box=0, obj=0, cls=0, loss=0, AP=ap, AP50=ap)
        for number, ap in enumerate(figures, 1)
    ]
    assert epochs_without_gain(rows, since) == expected


def test_a_training_ends_where_its_time_is_up(
    project: Path, tmp_path: Path, undisturbed: Any, counted_in_steps: None
) -> None:
    # Minute 5 comes at step 5 of epoch 2, the next update of the weights (every second step) at step 6.
    settings = config(max_minutes=5)
    calls = iter(range(1, 1000))
    with pytest.raises(TryAgain):  # at call 7: a call for each of 6 steps, then one before the evaluation
        fitted(project, settings, work=tmp_path, should_stop=lambda: next(calls) >= 7)
    ended = fitted(project, settings, work=tmp_path)
    assert (ended.resumed_at, ended.ended_by, ended.steps) == (6, "max_minutes", 6)
    first, second = ended.rows
    assert first == undisturbed.rows[0]
    assert (second["epoch"], second["step"], ended.best["epoch"]) == (2, 6, 2)
    assert second["AP"] is not None
    assert second["box"] == pytest.approx(undisturbed.rows[1]["box"], rel=0.5), "a mean of 2 steps and one of 4"
    longer = fitted(project, replace(settings, max_minutes=8), work=tmp_path)
    assert (longer.resumed_at, longer.ended_by, longer.steps) == (6, "max_minutes", 8)
    assert longer.rows == undisturbed.rows[:2], "as if nothing had been cut short"


@pytest.mark.parametrize(("call", "rows"), [(5, 1), (9, 1)], ids=["at a step", "in the evaluation of epoch 2"])
def test_a_stopped_training_writes_a_checkpoint_and_ends_as_if_it_had_not_been(
    project: Path, tmp_path: Path, undisturbed: Any, call: int, rows: int
) -> None:
    calls = iter(range(1, 1000))  # once a step of the 4 of an epoch, and before each batch of an evaluation
    with pytest.raises(TryAgain, match=rf"stopped on request at step \d+ of {STEPS}; the same command continues"):
        fitted(project, config(), work=tmp_path, should_stop=lambda: next(calls) >= call)
    state = json.loads((checkpoint.found(tmp_path)[0] / checkpoint.STATE).read_text())
    assert state["step"] in (call, call + 1) if call < 9 else state["step"] == 8
    assert len(state["rows"]) == rows
    resumed = fitted(project, config(), work=tmp_path)
    assert resumed.resumed_at == state["step"]
    assert equal(resumed.model, undisturbed.model)
    assert resumed.rows == undisturbed.rows


STALLED = """
import faulthandler, sys, time
from pathlib import Path
import small_training
from waiting import LIMIT_S

later, requested = faulthandler.dump_traceback_later, []

def patient(limit_s, **options):  # steps may take as long as they like on a busy machine
    requested.append((limit_s, options))
    later(LIMIT_S, **options)

faulthandler.dump_traceback_later = patient

def standstill(items, label, total=None):
    for done, item in enumerate(items):
        if done == 2:
            limit_s, options = requested[-1]
            later(limit_s, **options)
            time.sleep(LIMIT_S)
        yield item

small_training.fitted(Path(sys.argv[1]), small_training.config(stall_limit_s=5), progress=standstill)
"""


def test_a_process_that_makes_no_step_shows_its_stacks_and_ends(project: Path) -> None:
    words = [sys.executable, "-c", STALLED, str(project)]
    support = {**os.environ, "PYTHONPATH": f"{Path(small_training.__file__).parent}:{small_training.ROOT}"}
    done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S, check=False, env=support)
    assert done.returncode == 1
    assert "Timeout (0:00:05)!" in done.stderr
    assert " in standstill" in done.stderr


def test_a_damaged_checkpoint_costs_steps_and_not_the_result(
    project: Path, tmp_path: Path, undisturbed: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Stopped):
        fitted(project, config(), work=tmp_path, progress=stop_at(13))
    newest, before = checkpoint.found(tmp_path)
    (newest / checkpoint.TENSORS).write_bytes(b"nothing")
    resumed = fitted(project, config(), work=tmp_path)
    assert f"{newest} is damaged" in caplog.text
    assert resumed.resumed_at == int(before.name.removeprefix("step-"))
    assert equal(resumed.model, undisturbed.model)


def test_a_checkpoint_of_other_parameters_is_refused(project: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        fitted(project, config(), work=tmp_path, progress=stop_at(5))
    with pytest.raises(UserError, match=r"seed: 0 there, 1 here"):
        fitted(project, config(seed=1), work=tmp_path)


def test_only_what_determines_the_result_is_its_identity() -> None:
    same = config(loader_workers=2, checkpoint_every=7)
    assert checkpoint.digest(same.identity()) == checkpoint.digest(config().identity())
    pasted = tuple(replace(phase, hyp=phase.hyp.replace(paste_in=0.1)) for phase in config().phases)
    more = [{"phases": config().phases[:1]}, {"phases": pasted}, {"repeat_factor": 0.5}, {"class_weights": "balanced"}]
    assert checkpoint.digest(config(patience=3, max_minutes=1).identity()) == checkpoint.digest(config().identity())
    for change in ({"seed": 1}, {"size": 96}, {"data": "x"}, {"precision": "fp32"}, *more):
        assert checkpoint.digest(config(**change).identity()) != checkpoint.digest(config().identity())


def test_the_identity_is_that_of_earlier_versions_so_that_their_checkpoints_are_found() -> None:
    known = "58bce61943812a3d8b768d10e8cdc42379b69831a343ca15a5488a16ced063bb"
    settings = config(data="x", anchors=(((1.0, 2.0),),), freeze=("body.stem",))
    assert checkpoint.digest(settings.identity()) == known


def test_repeats_lengthen_each_epoch_and_a_stop_changes_nothing(project: Path, tmp_path: Path) -> None:
    """With threshold 1 an image counts 1 / sqrt(f) of its rarest class; batches of 8 from their sum are an epoch."""
    held = [set(rows[:, 0]) for rows in load_split(project / "data", "train").labels]
    factors = [max(len(held) / sum(c in other for other in held) for c in classes) ** 0.5 for classes in held]
    steps = int(sum(factors)) // 8
    assert steps > len(held) // 8
    phases = (Phase(2, config().phases[0].hyp),)
    settings = config(batch=8, width=0.125, repeat_factor=1.0, phases=phases, checkpoint_every=1)
    whole = fitted(project, settings)
    with pytest.raises(Stopped):
        fitted(project, settings, work=tmp_path, progress=stop_at(steps + 1))
    resumed = fitted(project, settings, work=tmp_path)
    assert (resumed.resumed_at, resumed.steps, whole.steps) == (steps + 1, 2 * steps, 2 * steps)
    assert equal(resumed.model, whole.model)


def test_class_weights_act_on_the_class_loss_alone(project: Path) -> None:
    """One step on all 16 images, from the same weights: with 3 for every class the class loss is 3 times as large."""
    settings = config(batch=16, width=0.125, phases=(replace(config().phases[0], epochs=1),))
    train_set = load_split(project / "data", "train")
    plain = fitted(project, settings).rows[0]
    tripled = fitted(project, replace(settings, class_weights=dict.fromkeys(train_set.classes, 3.0))).rows[0]
    assert tripled["cls"] == pytest.approx(3 * plain["cls"], rel=1e-5)
    assert (tripled["box"], tripled["obj"]) == (plain["box"], plain["obj"])

    boxes = Counter(int(index) for rows in train_set.labels for index in rows[:, 0])
    mean = sum(boxes.values()) / len(boxes)
    by_hand = {train_set.classes[index]: mean / count for index, count in boxes.items()}
    named, balanced = (fitted(project, replace(settings, class_weights=w)) for w in (by_hand, "balanced"))
    assert balanced.rows[0]["cls"] == pytest.approx(named.rows[0]["cls"], rel=1e-6)
    assert balanced.rows[0]["cls"] != plain["cls"]


def test_a_training_without_a_work_folder_stops_at_once(project: Path) -> None:
    calls = iter(range(1, 1000))
    with pytest.raises(TryAgain, match=rf"stopped on request at step 2 of {STEPS}$"):
        fitted(project, config(), should_stop=lambda: next(calls) >= 2)


@pytest.mark.parametrize(("ends_at", "steps"), [(2, 8), (3, 16)], ids=["evaluated", "not evaluated: the next that is"])
def test_a_training_ends_early_where_the_caller_says_so(project: Path, ends_at: int, steps: int) -> None:
    whole = fitted(project, config())
    early = fitted(project, config(), on_epoch=lambda row: row["epoch"] >= ends_at)
    assert (early.ended_early, early.steps, whole.ended_early) == (True, steps, False)
    assert early.rows == whole.rows[: steps // 4]
    assert early.best["epoch"] <= steps // 4


def test_a_loss_that_is_not_finite_ends_the_training_with_advice(project: Path) -> None:
    wild = Hyperparameters(lr0=1e9, warmup_epochs=0, warmup_iterations=0)
    with pytest.raises(UserError, match=r"not finite at step \d+ \(epoch \d+\); lower train.hyp.lr0") as caught:
        fitted(project, config(phases=(Phase(5, wild),)))
    assert "\n" not in str(caught.value)


def test_without_objects_to_validate_on_there_is_no_ap(project: Path) -> None:
    val = load_split(project / "data", "val")
    annotations = project / "without.json"
    content = json.loads(val.annotation_path.read_text())
    annotations.write_text(json.dumps({**content, "annotations": []}))
    empty = replace(val, annotation_path=annotations, labels=[labels[:0] for labels in val.labels])
    trained = fit(config(), load_split(project / "data", "train"), empty)
    assert {row["AP"] for row in trained.rows} == {None}
    assert (trained.best["AP"], trained.best["AP50"], trained.best["fitness"]) == (None, None, 0)
    assert trained.best["epoch"] == 5, "of equals the one that was trained longest"


def test_the_result_is_a_detector_with_curves_and_a_summary(
    project: Path, tracking: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)  # where no outputs/ is
    given = {"data": project / "data", "out": project / "plain", "work": project / "plain-work"}
    changes = [*small_training.SETTINGS, "train.epochs=2", "train.amp='off'"]
    run_stage("train", small_training.ROOT / "params.yaml", changes, MODEL, log_format="json", **given)
    said = capsys.readouterr()
    loaded = load_detector(project / "plain" / "model.safetensors")
    record = json.loads((project / "plain" / "train.json").read_text())
    lines = (project / "plain" / "curves.csv").read_text().splitlines()
    assert loaded.classes == [str(digit) for digit in range(10)]
    assert loaded.size == SIZE
    assert lines[0] == "epoch,step,lr,box,obj,cls,loss,AP,AP50"
    assert [line.split(",")[:2] for line in lines[1:]] == [["1", "4"], ["2", "8"]]
    assert (record["epochs"], record["steps"], record["best_epoch"], record["precision"]) == (2, 8, 2, "float32")
    assert (record["ended_by"], record["last_epoch"]) == ("epochs", 2)
    assert record["fitness"] == pytest.approx(0.9 * record["AP"] + 0.1 * record["AP50"])
    assert record["mlflow_run_id"]
    note, first, second, end = map(json.loads, said.out.splitlines())
    assert (note["event"], note["message"]) == (
        "note",
        f"no outputs/anchors/{MODEL}.json and outputs/evolve/hyp.yaml: "
        "using the published anchors and the recipe's hyperparameters with train.hyp",
    )
    assert [(event["event"], event["epoch"], event["step"]) for event in (first, second)] == [
        ("epoch", 1, 4),
        ("epoch", 2, 8),
    ]
    assert second["AP"] == second["best"]["AP"] == record["AP"]
    assert (end["event"], end["AP50"], end["out"]) == ("end", record["AP50"], str(project / "plain"))
    assert said.err.splitlines()[-1].startswith("train: epochs 2, best_epoch 2, AP ")
    assert [p.name for p in (project / "plain-work" / "train" / MODEL).iterdir()] == ["lock"]


def test_fine_tuning_takes_over_what_fits_and_leaves_the_frozen_parts(
    project: Path, tmp_path: Path, tracking: None, counted_in_steps: None
) -> None:
    torch.manual_seed(3)
    source = build_model(MODEL, num_classes=2, width=0.25)
    start = tmp_path / "start.safetensors"
    save_detector(start, source, classes=["a", "7"], size=SIZE)
    changes = ["train.epochs=9", "train.width=0.25", "train.freeze=[body.stem]", f"train.weights={start}"]
    summary = run(project, "tuned", *changes, "train.max_minutes=5")
    whole = json.loads((project / "tuned" / "train.json").read_text())
    assert (summary["ended_by"], summary["last_epoch"], summary["best_epoch"]) == ("max_minutes", 2, 2)
    assert (whole["epochs"], whole["ended_by"], whole["steps"]) == (9, "max_minutes", 6), "the next update"
    record = whole["started_from"]
    assert record["file"] == str(start)
    assert sorted({name.split(".")[0] for name in record["loaded"]}) == ["body"]
    assert record["fresh"] == []
    assert record["head"] == {
        "tensors": [f"head.{name}" for name in source.head.state_dict()],
        "boxes": True,
        "classes": ["7"],
        "fresh": [str(digit) for digit in range(10) if digit != 7],
    }
    tuned = load_detector(project / "tuned" / "model.safetensors").model
    assert equal(tuned.body.get_submodule("stem"), source.body.get_submodule("stem"))  # BatchNorm statistics as well
    assert not equal(tuned.body.get_submodule("stage2"), source.body.get_submodule("stage2"))


def test_only_a_start_from_other_classes_changes_the_identity(project: Path, tmp_path: Path) -> None:
    digits = [str(digit) for digit in range(10)]
    for name, classes in ("same", digits), ("others", digits[::-1]):
        save_detector(tmp_path / name, build_model(MODEL, 10, width=0.125), classes=classes, size=SIZE)
    configured = {
        name: train.configure(
            parameters(f"train.weights={tmp_path / name}"), MODEL, project / "data", project / "anchors.json", None
        ).identity()
        for name in ("same", "others")
    }
    assert "head_rows" not in configured["same"]
    assert configured["others"]["head_rows"] is True


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.weights=none.safetensors", r"train.weights = none.safetensors: cannot be read \(No such file"),
        (
            "train.weights=official/a.pt",
            r"convert it first: .* import-weights --model yolov4-tiny --from official/a.pt --out a.safetensors$",
        ),
        ("train.freeze=[body.stm]", r"train.freeze = \[body.stm\]: no part 'body.stm'; the model has body.stem"),
        ("train.class_weights={eigth: 2}", r"train.class_weights names the unknown class 'eigth'; the data have 0, 1"),
        ("train.width=0", r"train.width = 0: .*greater than 0"),
    ],
)
def test_wrong_starts_are_one_line(project: Path, tracking: None, change: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        run(project, "wrong", change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 3)])
def test_a_training_ended_at_any_step_gives_the_same_bits_by_the_same_command(
    project: Path, tracking: None, whole: Path, sign: int, code: int
) -> None:
    target = random.randrange(2, STEPS - 3)
    for attempt in range(10):  # a signal may come after the end
        name = f"ended-{sign}-{attempt}"
        work = project / f"{name}-work" / "train" / MODEL
        process = started(command(project, name), small_training.ROOT)
        try:
            wait_for_step(work, target, process)
            time.sleep(random.random() / 4)
        finally:
            sent = time.time()
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, sign)
        process.join(LIMIT_S)
        if process.exitcode:
            break
    assert process.exitcode == code
    if sign == signal.SIGTERM:
        newest = max(path.stat().st_mtime for path in work.glob("*/checkpoints/step-*/SHA256SUMS"))
        assert sent <= newest <= time.time()
    run(project, name)
    assert json.loads((project / name / "train.json").read_text())["resumed_at_step"] > 0
    for file in ("model.safetensors", "curves.csv"):
        same = (project / name / file).read_bytes() == (whole / file).read_bytes()
        assert same, f"{file} differs after signal {sign} at step {target} or little later"


@pytest.fixture(scope="module")
def whole(project: Path) -> Path:
    """The results of a training that nothing disturbed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project / 'mlflow.db'}")
        patch.delenv("RAY_ADDRESS", raising=False)
        run(project, "whole")
    return project / "whole"


def wait_for_step(work: Path, step: int, process: BaseProcess) -> None:
    """Until a checkpoint of this step or a later one is there, or the training has ended."""
    checkpoints = "*/checkpoints/step-????????"
    until(
        lambda: not process.is_alive() or any(int(path.name[5:]) >= step for path in work.glob(checkpoints)),
        f"a checkpoint of step {step}",
    )


def test_a_second_run_on_the_same_work_is_refused(project: Path) -> None:
    folder = project / "locked-work" / "train" / MODEL
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another run is training yolov4-tiny there"):
            run(project, "locked")


class Hints(training_log.Silent):
    """Keeps the hints."""

    def __init__(self) -> None:
        self.kept: list[str] = []

    def hint(self, message: str) -> None:
        self.kept.append(message)


@pytest.mark.parametrize(
    ("val", "hint"),
    [
        ("ab", "val is a copy of train"),
        ("xxxxxxxxxa", "1 of 10 validation images are in train"),
        ("xxxxxxxxxxa", None),
        ("x", None),
        ("", None),
    ],
)
def test_a_validation_split_of_training_images_is_told_before_training(
    project: Path, tmp_path: Path, val: str, hint: str | None
) -> None:
    images = {f"images/train/{number}.jpg": digest for number, digest in enumerate("abcd")}
    images |= {f"images/val/{number}.jpg": digest for number, digest in enumerate(val)}
    (tmp_path / "manifest.json").write_text(json.dumps({"files": {**images, "annotations/instances_val.json": "a"}}))
    work, log = tmp_path / "train" / MODEL, Hints()
    work.mkdir(parents=True)
    with (work / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # so that it goes no further
        with pytest.raises(UserError, match="another run is training"):
            train.run(
                parameters(),
                model=MODEL,
                data=tmp_path,
                anchors=None,
                hyp=None,
                out=tmp_path / "out",
                work=tmp_path,
                log=log,
            )
    assert [line.partition(":")[0] for line in log.kept] == ([hint] if hint else [])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"model": "yolov4-tiny", "size": 96, "anchors": [[[1, 2]]]}', "anchors of yolov4-tiny at 96 px"),
        ("{", "not a file of anchors"),
        (
            None,
            r"not found; run `scaled-yolov4 anchors -S 'models=\[yolov4-tiny\]' -S train.per_model.yolov4-tiny.size=64",
        ),
    ],
)
def test_wrong_anchors_are_named(project: Path, tmp_path: Path, content: str | None, expected: str) -> None:
    path = tmp_path / "anchors.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=expected) as caught:
        train.configure(parameters(), MODEL, project / "data", path, None)
    assert str(path) in str(caught.value)


def test_without_files_of_anchors_and_evolve_it_is_the_training_they_would_give_unchanged(project: Path) -> None:
    """`anchors` that keeps the published ones and `evolve` that adopts nothing."""
    spec = get_spec(MODEL)
    levels = [
        (np.array(level) * 96 / spec.native_size).round(2).tolist() for level in spec.anchors
    ]  # as `anchors` does
    (project / "kept.json").write_text(json.dumps({"model": MODEL, "size": 96, "anchors": levels}))
    settings = parameters("train.size=96")
    named = train.configure(settings, MODEL, project / "data", project / "kept.json", project / "hyp.yaml")
    assert train.configure(settings, MODEL, project / "data", None, None) == named


def test_a_file_that_was_named_must_exist(project: Path, tracking: None) -> None:
    given = {"data": project / "data", "anchors": project / "anchors.json", "hyp": project / "none.yaml"}
    given["work"] = project / "none-work"
    with pytest.raises(UserError, match=r"none.yaml: not found; run `scaled-yolov4 evolve`"):
        run_stage("train", small_training.ROOT / "params.yaml", small_training.SETTINGS, MODEL, **given)


def test_hyperparameters_come_from_recipe_then_parameters_then_evolution(project: Path, tmp_path: Path) -> None:
    evolved = tmp_path / "hyp.yaml"
    evolved.write_text("hyp: {lr0: 0.02}\n")
    changes = "train.hyp={lr0: 0.03, box: 0.1}", "train.second_stage={epochs: 9, hyp: {scale: 0.8}}"
    made = train.configure(parameters(*changes), MODEL, project / "data", project / "anchors.json", evolved)
    first, second = made.phases
    recipe = RECIPES["small"].hyperparameters(get_spec(MODEL).hyp)
    assert (first.epochs, second.epochs) == (5, 9)
    assert (first.hyp.lr0, first.hyp.box, first.hyp.cls, first.hyp.scale) == (0.02, 0.1, recipe.cls, recipe.scale)
    assert second.hyp == first.hyp.replace(scale=0.8)
    evolved.write_text("hyp: {learning: 1}\n")
    with pytest.raises(UserError, match="unknown hyperparameter 'learning'"):
        train.configure(parameters(), MODEL, project / "data", project / "anchors.json", evolved)

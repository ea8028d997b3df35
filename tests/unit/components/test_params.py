"""The parameter files, and how wrong ones are refused."""

from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components import parameter_file as parameters
from components.parameter_file import DEFAULTS
from components.params import Params, Section, hyperparameters
from yolo_core.errors import UserError
from yolo_core.hyperparameters import RANGES, Hyperparameters
from yolo_core.models import get_spec
from yolo_core.recipes import RECIPES

ROOT = Path(__file__).parents[3]
QUICKSTART = ROOT / "params.yaml"


def refusal(*overrides: str, path: Path = QUICKSTART) -> str:
    with pytest.raises(UserError) as raised:
        parameters.load(path, list(overrides))
    message = str(raised.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", ["components/defaults.yaml", "params.yaml", "params/coco.yaml"])
def test_the_committed_files_are_valid(name: str):
    parameters.load(ROOT / name)


@pytest.mark.parametrize("name", ["yolov4-tiny", *parameters.load(ROOT / "params/coco.yaml").train.per_model])
def test_the_coco_file_holds_the_recipe_of_each_model(name: str):
    settings, spec = parameters.load(ROOT / "params/coco.yaml").train_settings(name), get_spec(name)
    recipe = spec.recipe
    assert (settings.size, settings.epochs, settings.batch) == (recipe.size, recipe.epochs, recipe.batch)
    pasted = {"paste_in": 0.05 if "tiny" in name else 0.15} if spec.family == "yolov7" else {}
    assert (settings.nominal_batch, settings.hyp) == (64, pasted)
    second = settings.second_stage and spec.hyp.replace(**settings.second_stage.hyp)
    assert second == (recipe.second_stage and recipe.second_stage.hyp)
    assert (settings.second_stage and settings.second_stage.epochs) == (
        recipe.second_stage and recipe.second_stage.epochs
    )


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.epoch=3", ["unknown key 'train.epoch'; did you mean train.epochs?"]),
        ("colour=red", ["unknown key 'colour'; remove it or check its spelling"]),
        ("confirm=null", ["unknown key 'confirm'; did you mean evolve.confirm?"]),
        ("train.epochs=many", ["train.epochs", "many", "integer"]),
        ("train.epochs=0", ["train.epochs", "0", "greater than or equal to 1"]),
        ("train.patience=0", ["train.patience", "0", "greater than or equal to 1"]),
        ("train.max_minutes=0", ["train.max_minutes", "0", "greater than 0"]),
        ("train.size=100", ["train.size", "100", "multiple of 32"]),
        ("train.hyp.lr0=2", ["train.hyp", "lr0", "2", "0.1"]),
        ("train.hyp.lr=0.01", ["train.hyp", "unknown hyperparameter 'lr'"]),
        ("train.repeat_factor=0", ["train.repeat_factor = 0", "greater than 0"]),
        ("train.class_weights=even", ["train.class_weights = 'even'", "balanced", "{person: 2.0}"]),
        ("train.class_weights={cat: 0}", ["train.class_weights: weight 0 of the class cat", "above 0, up to 1000"]),
        ("train.class_weights={1.0: 2}", ["train.class_weights: the class 1.0 needs quotes"]),
        ("train.amp=fast", ["train.amp", "fast", "boolean"]),
        ("models=[]", ["models", "at least 1"]),
        ("models=[yolov4-tinny]", ["models.0 = 'yolov4-tinny'", "did you mean yolov4-tiny, "]),
        ("models=[yolov7, yolov7-x, yolov7]", ["models", "'yolov7' stands twice"]),
        ("evolve.model=yolov8", ["evolve.model = 'yolov8'", "unknown model", "did you mean yolov7"]),
        ("train.per_model.yolov4-tinny.epochs=3", ["train.per_model: unknown model 'yolov4-tinny'", "yolov4-tiny,"]),
        (
            "train.per_model.yolov4-tiny.epoch=3",
            ["did you mean train.per_model.yolov4-tiny.epochs?"],
        ),
        ("train.hyp={box: 0.1, cls: 0.3, box: 0.2}", ["-S train.hyp={", ":1: key 'box' stands twice"]),
        ("prepare.source=ftp", ["prepare.source", "ftp", "coco-dir"]),
        ("evaluate.tta.scales=[1]", ["evaluate.tta", "same length"]),
        ("train.second_stage={epochs: 3}", ["second_stage.epochs must be more"]),
        ("train.second_stage=null", None),
        ("train.workers={min: 1, max: 4}", None),
        ("train.workers=0", ["train.workers", "0", "greater than or equal to 1"]),
        ("train.workers=many", ["train.workers", "many", "expected a number, or {min:"]),
        ("train.workers={min: 3, max: 2}", ["train.workers", "min = 3 must not be more than max = 2"]),
        ("promote.confidence=.nan", ["promote.confidence", "nan"]),
        ("nothing", ["-S nothing", "key=value"]),
        ("seed.deep=1", ["-S seed.deep=1", "not a section"]),
        ("seed=[", ["-S seed=[", "YAML"]),
    ],
)
def test_a_wrong_value_is_refused_by_name(override: str, words: list[str] | None):
    if words is None:
        parameters.load(QUICKSTART, [override])
    else:
        message = refusal(override)
        assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: [", ["bad.yaml:", "YAML"]),
        ("- a\n- b\n", ["bad.yaml", "sections"]),
        ("", ["bad.yaml", "sections"]),
        ("seed: 0\ntrain:\n  size: 64\n  amp: true\n  size: 96\n", ["bad.yaml:5: key 'size' stands twice"]),
        ("a: !!python/object/apply:os.system ['true']", ["bad.yaml", "YAML"]),
    ],
)
def test_a_broken_file_is_one_line(tmp_path: Path, text: str, words: list[str]):
    bad = tmp_path / "bad.yaml"
    bad.write_text(text)
    message = refusal(path=bad)
    assert all(word in message for word in words), message


def keys(section: type[Section]) -> dict[str, object]:
    """The keys of a section, with those of its fixed subsections."""
    found: dict[str, object] = {}
    for name, field in section.model_fields.items():
        kinds = (field.annotation, *get_args(field.annotation))
        below = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)
        found[field.alias or name] = keys(below) if below and field.default is not None else None
    return found


def test_the_defaults_name_every_parameter():
    given, expected = parameters.defaults(), keys(Params)
    assert set(given) == set(expected)
    for name, below in expected.items():
        assert below is None or set(given[name]) == set(below), name


def test_a_file_holds_what_differs_from_the_defaults(tmp_path: Path):
    """Given `train.epochs`, the other keys of `train` stay; a list is replaced as a whole."""
    path = tmp_path / "params.yaml"
    path.write_text("models: [yolov7]\ntrain:\n  epochs: 7\nevaluate:\n  tta: {scales: [1], flips: [none]}\n")
    given, defaults = parameters.load(path), parameters.load(DEFAULTS)
    assert given.models == ["yolov7"]
    assert given.train == defaults.train.model_copy(update={"epochs": 7})
    assert given.evaluate.tta.scales == [1]
    assert given.digest("anchors", "prepare") == defaults.digest("anchors", "prepare")
    assert parameters.defaults()["models"] == ["yolov4-tiny"], "reading a file leaves the defaults as they are"


def test_a_missing_file_is_one_line(tmp_path: Path):
    assert "no such parameter file" in refusal(path=tmp_path / "none.yaml")


def test_overrides_change_one_value():
    changed = parameters.load(QUICKSTART, ["train.epochs=3", "models=[yolov7, yolov7-x]"])
    assert changed.train.epochs == 3
    assert changed.models == ["yolov7", "yolov7-x"]


def test_per_model_settings_override_the_common_ones():
    params = parameters.load(
        QUICKSTART,
        [
            "train.hyp={box: 0.1, cls: 0.7}",
            "train.per_model={yolov7: {size: 640, hyp: {cls: 0.3}, second_stage: {epochs: 99}}}",
        ],
    )
    own, other = params.train_settings("yolov7"), params.train_settings("yolov7-x")
    assert (own.size, own.epochs, own.hyp["box"], own.hyp["cls"]) == (640, params.train.epochs, 0.1, 0.3)
    assert own.second_stage is not None
    assert own.second_stage.epochs == 99
    assert (other.size, other.hyp["box"], other.hyp["cls"]) == (params.train.size, 0.1, 0.7)


def test_digest_follows_values_only():
    one = parameters.load(QUICKSTART)
    assert one.digest() == parameters.load(QUICKSTART).digest()
    assert one.digest("train") != parameters.load(QUICKSTART, ["train.epochs=7"]).digest("train")
    assert one.digest("prepare") == parameters.load(QUICKSTART, ["train.epochs=7"]).digest("prepare")


def test_hyperparameters_are_the_recipes_then_those_of_hyp():
    published, changes = Hyperparameters(), ["train.recipe=small", "train.hyp={lr0: 0.03}"]
    hyp = hyperparameters(published, parameters.load(DEFAULTS, changes).train_settings("yolov7"))
    assert (hyp.lr0, hyp.lrf, hyp.box) == (0.03, RECIPES["small"].changes["lrf"], published.box)


@given(st.sampled_from(sorted(RANGES)), st.floats(allow_nan=True, allow_infinity=True))
def test_every_hyperparameter_keeps_its_range(name: str, value: float):
    allowed = RANGES[name]
    if allowed.low <= value <= allowed.high:
        assert getattr(Hyperparameters().replace(**{name: value}), name) == value
    else:
        with pytest.raises(UserError, match=name):
            Hyperparameters().replace(**{name: value})


def test_an_unknown_hyperparameter_is_refused():
    with pytest.raises(UserError, match="unknown hyperparameter 'lr'"):
        Hyperparameters().replace(lr=0.1)


def test_null_for_one_model_removes_a_common_value():
    params = parameters.load(
        ROOT / "params.yaml",
        [
            "train.second_stage={epochs: 500}",
            "train.weights=w.safetensors",
            "train.per_model={yolov7: {second_stage: null}}",
        ],
    )
    assert params.train_settings("yolov7").second_stage is None
    assert params.train_settings("yolov7").weights == "w.safetensors"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evolve.halving={epochs: [2, 2], keep: 0.5}", r"epochs = \[2, 2\] must ascend"),
        ("evolve.halving={epochs: [4], keep: 0.5}", "halving.epochs must end before epochs = 4"),
        ("evolve.gpu_hours=1", "gpu_hours needs gpus_per_trial above 0"),
        ("evolve.gpus_per_trial=1.5", "gpus_per_trial = 1.5: expected a fraction of 1, or a whole number"),
        ("evolve.confirm={seeds: 1}", "seeds"),
    ],
)
def test_evolution_that_makes_no_sense_is_refused(override: str, message: str):
    with pytest.raises(UserError, match=message):
        parameters.load(ROOT / "params.yaml", [override])

"""Stages run for a test, which read no parameter that their row of the stage table does not declare."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest

from components.params import Params, Section, TrainSettings
from components.stage_table import get_stage

# What no row has to declare: it decides where, how fast and under which name, not what comes out.
OPERATION = (
    "project",
    "register.experiment",
    "train.workers",
    "train.gpus_per_worker",
    "train.loader_workers",
    "train.cache",
    "train.cache_gib",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.stall_minutes",
)

# Read to make the configuration of a trial, and replaced there by a trial's own.
NOT_OF_A_TRIAL = (
    "train.checkpointing",
    "train.compile",
    "train.eval_every",
    "train.max_minutes",
    "train.patience",
    "train.second_stage",
    "train.sync_bn",
)


def run(stage: ModuleType, params: Params, **given: Any) -> dict[str, Any]:
    """Run the stage of this module.

    A parameter that it reads and does not declare would change its result without DVC noticing.
    """
    with _reads(params) as keys:
        result = stage.run(params, **given)
    row = get_stage(stage.__name__.rpartition(".")[2])
    known = (*row.params, *OPERATION, *(NOT_OF_A_TRIAL if row.name == "evolve" else ()))
    undeclared = [key for key in sorted(keys) if not _within(key, known)]
    assert not undeclared, f"{stage.__name__} reads {', '.join(undeclared)}"
    return result


def _within(key: str, sections: tuple[str, ...]) -> bool:
    return any(key == section or key.startswith(f"{section}.") for section in sections)


@contextmanager
def _reads(params: Params) -> Iterator[set[str]]:
    """Yield the keys of the parameters that are read while the block runs, such as `evaluate.conf`."""
    keys, found = _keys_of(params), set[str]()
    settings_of = Params.train_settings
    plain = Section.__getattribute__

    def read(section: Section, name: str) -> object:
        value = plain(section, name)
        key = keys.get(id(section))
        if key is not None and name in type(section).model_fields and not isinstance(value, Section):
            found.add(f"{key}{name}".replace("register_", "register"))
        return value

    def train_settings(given: Params, model: str) -> TrainSettings:
        with pytest.MonkeyPatch.context() as unrecorded:
            unrecorded.setattr(Section, "__getattribute__", plain)
            settings = settings_of(given, model)
        kept.append(settings)  # so that its id stays its own
        keys[id(settings)] = "train."
        return settings

    kept: list[TrainSettings] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Section, "__getattribute__", read)
        patch.setattr(Params, "train_settings", train_settings)
        yield found


def _keys_of(section: Section, prefix: str = "") -> dict[int, str]:
    """The prefix of the keys of each section within a section, by the section's id."""
    keys = {id(section): prefix}
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            keys |= _keys_of(value, f"{prefix}{name.removesuffix('_')}.")
    return keys

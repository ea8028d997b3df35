"""A trial of a search: one training, in the test's own process."""

import dataclasses
import math
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import small_search
from small_search import HALVING, params

from components.evolution.setup import trial_config
from yolo_core.data.cache import CacheSettings
from yolo_core.data.coco import load_split
from yolo_core.train import checkpoint


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data` and `anchors`."""
    return small_search.prepared(tmp_path_factory.mktemp("evolve"))


class ReachedAtCheck(float):
    """A deadline that is reached when it is compared with the clock for the n-th time."""

    def __new__(cls, looks: int) -> "ReachedAtCheck":
        deadline = super().__new__(cls, math.inf)
        deadline.left = looks
        return deadline

    def __le__(self, _now: float) -> bool:
        self.left -= 1
        return self.left <= 0


class TestTrial:
    """One training, in this process."""

    @pytest.fixture
    def plan(self, prepared, tmp_path):
        from components.evolution.trial import TrialPlan

        config = trial_config(params(*HALVING), prepared / "data", prepared / "anchors")
        return TrialPlan(config, prepared / "data", CacheSettings(), None, None, 1, tmp_path / "work", (1, 2), 0.5)

    @pytest.fixture
    def attempt(self, prepared, plan):
        from components.evolution.trial import run_trial

        splits = [load_split(prepared / "data", split) for split in ("train", "val")]

        def with_values(deadline: float | None = None, limits: Sequence[float] = (), **values: float) -> dict:
            hyp = dataclasses.asdict(plan.config.phases[0].hyp) | values
            return run_trial(plan, lambda: (splits[0], splits[1]), hyp, deadline or math.inf, limits)

        return with_values

    def test_returns_its_metrics(self, attempt):
        result = attempt()
        assert result["ended"]
        assert result["reason"] is None
        assert result["fitness"] == pytest.approx(0.1 * result["AP50"] + 0.9 * result["AP"])

    def test_that_diverges_scores_zero_and_says_why(self, attempt):
        result = attempt(lr0=1e30, warmup_epochs=0.0)
        assert (result["ended"], result["fitness"], result["AP"]) == (True, 0.0, 0.0)
        assert "not finite" in result["reason"]

    def test_stops_at_the_deadline(self, attempt):
        assert attempt(deadline=time.time()) == {"ended": False}

    def test_ends_at_the_rung_whose_limit_it_misses(self, attempt):
        whole = attempt(limits=[-math.inf, -math.inf])
        assert len(whole["rungs"]) == 2
        assert "stopped_at" not in whole
        stopped = attempt(limits=[-math.inf, 2.0])
        assert (stopped["stopped_at"], stopped["rungs"], stopped["fitness"]) == (2, whole["rungs"], whole["rungs"][1])
        assert attempt(limits=[2.0, -math.inf])["stopped_at"] == 1

    def test_that_takes_long_resumes_from_its_checkpoint(self, attempt, plan, monkeypatch):
        from components.evolution import trial

        whole = attempt(limits=[-math.inf, -math.inf])
        monkeypatch.setattr(trial, "LONG_IMAGES", 1)
        assert attempt(deadline=ReachedAtCheck(5), limits=[-math.inf, -math.inf]) == {"ended": False}
        kept = checkpoint.found(plan.work / "trial")[0]
        assert 3 < int(kept.name.removeprefix("step-")) < 12  # of 4 epochs of 3 steps
        again = attempt(limits=[-math.inf, -math.inf])
        assert {**again, "seconds": 0} == {**whole, "seconds": 0}

"""The cost estimate: its arithmetic, and that the page shows what it prints."""

from pathlib import Path

import pytest

from infra import costs

PAGE = Path(__file__).parents[2] / "docs" / "cluster.md"


def test_the_page_shows_the_tables() -> None:
    assert costs.tables() in PAGE.read_text(encoding="utf-8"), "python -m infra.costs prints the current ones"


def test_hours_of_a_training() -> None:
    """P7: 1636.7 GFLOPs x 3 x 118287 images x 450 epochs over 16 A100 at 35 % of 312 TFLOP/s."""
    seconds = 1636.7e9 * 3 * 118_287 * 450 / (16 * 312e12 * 0.35)
    p7 = costs.training("yolov4-p7")
    assert p7.hours == pytest.approx(seconds / 3600)
    assert p7.dollars == pytest.approx(p7.hours * 2 * costs.PER_HOUR["p4d.24xlarge"])


def test_prod_has_two_standby_databases() -> None:
    assert costs.idle_dollars("prod")["database"] == pytest.approx(2 * costs.PER_HOUR["db.m7g.large"] * 730)
    assert costs.idle_dollars("dev")["database"] == pytest.approx(costs.PER_HOUR["db.t4g.medium"] * 730)

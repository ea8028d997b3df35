"""The scorecard: marks by hand, the sections that are quick to count, and the check for a stale page."""

import pytest

from yolo_core.scorecard import __main__ as command
from yolo_core.scorecard import rules
from yolo_core.scorecard.figures import Figure, Size


@pytest.mark.parametrize(
    ("figure", "mark", "cells"),
    [
        (Figure("x", 6.9, 6.91, "counted"), "reproduced", ("6.9", "6.91", "+0.01")),
        (Figure("x", 109, 108.52, "counted"), "reproduced", ("109", "108.5", "-0.5")),  # rounds to 109
        (Figure("x", 360.0, 360.16, "counted"), "reproduced", ("360.0", "360.16", "+0.16")),  # 0.04 % off
        (Figure("x", 13.8, 13.74, "counted"), "**differs**", ("13.8", "13.74", "-0.06")),  # rounds to 13.7
        (Figure("x", 160, 159.43, "counted"), "**differs**", ("160", "159.4", "-0.6")),
        (Figure("x", 7.5, 7.503, "derived"), "derived", ("7.5", "7.50", "0")),
        (Figure("x", 41, None, "measured"), "needs a GPU", ("41", "", "")),
        (Figure("x", (1, 2, 8), (1, 2, 8), "counted"), "reproduced", ("1-2-8", "1-2-8", "")),
        (Figure("x", (1, 2, 8), (1, 2, 4), "counted"), "**differs**", ("1-2-8", "1-2-4", "")),
    ],
)
def test_marks_by_hand(figure, mark, cells):
    assert figure.mark == mark
    assert figure.cells() == (*cells, mark)


def test_a_size_has_one_mark_or_two():
    right, wrong = Figure("p", 6.2, 6.22, "counted"), Figure("g", 13.8, 13.74, "counted")
    assert Size("x", right, wrong).cells()[-1] == "reproduced / **differs**"
    assert Size("x", right, None).cells() == ("x", "6.2", "6.22", "+0.02", "", "", "", "reproduced")


def test_counted_layers_are_the_formulas_and_the_paper_contradicts_itself_in_three_places():
    marks = {row.what: row.mark for row in (*rules.layers().figures, *rules.tiny_rules().figures)}
    differing = {what for what, mark in marks.items() if mark == "**differs**"}
    assert differing == {
        "transitions of a partial stage, w h b^2 x",  # 3/4 in the formula, 1/2 + 1/2 + 1/4 + 1 = 9/4 as built
        "the same with its downsampling, w h b^2 x",  # 9/2 more, for a 3x3 convolution from b/2 to b channels
        "PCB beats CSP where kg exceeds b x",
    }
    assert marks["yolov4-csp, residual blocks"] == "reproduced"


def test_the_use_of_the_gpu_is_arithmetic():
    rows = {row.what: row for row in rules.gpu_use().figures}
    assert rows["yolov4-csp, utilisation %"].here == pytest.approx(100 * 70 / 933)
    assert rows["speed, yolov4-csp / D3"].here == pytest.approx(70 / 36)
    assert rows["speed, yolov4-p6 / D7"].mark == "needs a GPU"


def test_a_stale_page_is_reported_and_a_current_one_is_not(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "page", lambda: "new\n")
    out = tmp_path / "page.md"
    out.write_text("old\n")
    assert command.main(["--check", "--out", str(out)]) == 1
    assert "stale" in capsys.readouterr().err
    assert out.read_text() == "old\n"
    assert command.main(["--out", str(out)]) == 0
    assert command.main(["--check", "--out", str(out)]) == 0
    assert out.read_text() == "new\n"

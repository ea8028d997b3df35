"""Choosing size, stages, depth and width, on graphs whose cost is known by hand and on the real ones."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolo_core.errors import UserError
from yolo_core.models import get_spec, model_names
from yolo_core.models.cost import Footprint
from yolo_core.models.planner import FAMILIES, Counters, Limits, count, plan
from yolo_core.models.roofline import Measurement, Roofline, roofline_through

GIB = 2**30
ROOF = Roofline(gflops_per_s=1000, number_bytes=2)  # 1 GFLOP takes 1 ms

# GFLOPs at native size and millions of parameters of the made-up graphs, under the names of real ones.
COSTS = {
    "yolov4-tiny": (7, 6),
    "yolov4-tiny-3l": (17, 6),
    "yolov4-csp": (120, 53),
    "yolov4-p5": (327, 71),
    "yolov4-p6": (717, 128),
    "yolov4-p7": (1637, 288),
    "yolov7-tiny": (6, 6),
    "yolov7-tiny-silu": (14, 6),
    "yolov7": (105, 37),
    "yolov7-x": (190, 71),
    "yolov7-w6": (360, 70),
    "yolov7-e6": (515, 97),
    "yolov7-d6": (702, 134),
    "yolov7-e6e": (843, 152),
}


def made_up(gflops: float = 10, convolutions: int = 10, io: int = 10**6, params: int = 10**6) -> Footprint:
    return Footprint(
        size=640,
        params=params,
        gflops=gflops,
        convolutions=convolutions,
        io=io,
        weight_bytes=4 * params,
        peak_bytes=10 * 2**20,
    )


def counter(model: str, width: float, depth: float, classes: int) -> Footprint:
    gflops, params_m = COSTS[model]
    graph = made_up(gflops * width**2 * depth, params=round(params_m * 1e6 * width**2 * depth))
    return replace(graph, size=get_spec(model).native_size)


COUNTERS = Counters(counter, lambda model, width, depth, classes: GIB)


def chosen(family: str = "yolov4", roofline: Roofline = ROOF, **limits):
    return plan(family, Limits(**limits), roofline, counters=COUNTERS).choice


@pytest.mark.parametrize("family", FAMILIES)
def test_the_families_name_real_models_from_small_to_large(family):
    for tier in FAMILIES[family]:
        specs = [[get_spec(name) for name in rung] for rung in tier]
        assert {spec.name for rung in specs for spec in rung} <= set(model_names())
        assert all(len({(spec.native_size, spec.strides) for spec in rung}) == 1 for rung in specs)
        sizes = [rung[0].native_size for rung in specs]
        assert sizes == sorted(set(sizes))


@pytest.mark.parametrize(
    ("latency_ms", "model", "size"),
    [
        (2000, "yolov4-p7", 1536),
        (1600, "yolov4-p7", 1408),  # 1637 x (1408/1536)^2 = 1376
        (717, "yolov4-p6", 1280),
        (327, "yolov4-p5", 896),
        (316, "yolov4-p5", 864),  # 327 x (864/896)^2 = 304
        (120, "yolov4-csp", 640),
        (30, "yolov4-csp", 320),  # 120 / 4
        (29, "yolov4-tiny-3l", 608),
        (6, "yolov4-tiny", 384),  # 7 x (384/416)^2 = 5.96; the 3l model at 448 px takes 9.2
    ],
)
def test_size_and_stages_come_first(latency_ms, model, size):
    choice = chosen(latency_ms=latency_ms)
    assert (choice.model, choice.size) == (model, size)
    assert choice.latency_ms <= latency_ms


def test_remaining_time_goes_into_depth_then_width():
    found = plan("yolov4", Limits(2500), ROOF, counters=COUNTERS)
    # 1637 x 1.5 = 2456 fits, x 1.75 = 2865 does not; then x 1.125^2 = 3108 does not
    assert (found.choice.depth, found.choice.width) == (1.5, 1.0)
    assert [(row.step, row.candidate.depth, row.candidate.width, row.kept) for row in found.rows[-4:]] == [
        ("depth", 1.25, 1.0, True),
        ("depth", 1.5, 1.0, True),
        ("depth", 1.75, 1.0, False),
        ("width", 1.5, 1.125, False),
    ]
    assert found.rows[-1].reason == "latency 3108 ms, limit 2500"
    wide = chosen(latency_ms=5000)
    assert (wide.depth, wide.width) == (2.0, 1.125)  # 1637 x 2 x 1.266 = 4144; x 1.5625 = 5116


def test_published_graphs_of_the_same_size_are_preferred_to_scaled_ones():
    found = plan("yolov7", Limits(800), ROOF, counters=COUNTERS)
    assert found.choice.model == "yolov7-d6"
    assert [row.candidate.model for row in found.rows if row.step == "published"] == [
        "yolov7-e6",
        "yolov7-d6",
        "yolov7-e6e",
    ]


def test_without_a_published_graph_that_fits_the_largest_compact_one_is_taken():
    choice = chosen(latency_ms=100, params_m=5)
    # 6 M x 0.75^2 x 0.67 = 2.3 M; csp would be 20 M. Then depth: x 2 / 0.67 = 6.75 M, x 1.25 / 0.67 = 4.2 M
    assert (choice.model, choice.size, choice.width, choice.depth) == ("yolov4-tiny-3l", 608, 0.75, 1.25)
    assert choice.params_m == pytest.approx(4.21875)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        # yolov4-tiny at 224 px, width 0.25, depth 0.33: 7 x (224/416)^2 / 16 x 0.33 = 0.0419
        ({"latency_ms": 0.01}, ["latency 0.0419 ms", "limit 0.01", "0.0319 ms over", "4.19 times"]),
        # 6 x 0.33 / 16 = 0.12375
        ({"latency_ms": 50, "params_m": 0.1}, ["parameters 0.124 M", "limit 0.1", "0.0237 M over"]),
        ({"latency_ms": 50, "training_gib": 0.1}, ["training memory", "GiB"]),
        ({"latency_ms": 50, "memory_gib": 0.001}, ["inference memory", "GiB"]),
    ],
)
def test_where_nothing_fits_the_binding_limit_is_named(limits, words):
    with pytest.raises(UserError, match="nothing fits") as raised:
        chosen(**limits)
    assert all(word in str(raised.value) for word in words), raised.value


@pytest.mark.parametrize("wrong", [{"latency_ms": 0}, {"latency_ms": float("nan")}, {"latency_ms": 1, "params_m": -1}])
def test_limits_out_of_range_are_refused(wrong):
    with pytest.raises(UserError, match="must be above 0"):
        chosen(**wrong)


def test_an_unknown_family_is_refused():
    with pytest.raises(UserError, match="yolov4, yolov7"):
        chosen("yolov5", latency_ms=1)


def test_memory_by_hand():
    choice = chosen(latency_ms=120, training_gib=10, training_batch=3)
    params = choice.graph.params
    assert choice.memory_gib == pytest.approx((4 * params + 10 * 2**20) / 2 / GIB)  # two bytes a number
    assert choice.training_gib == pytest.approx((16 * params + 3 * GIB) / GIB)


@given(
    latency=st.floats(0.1, 4000),
    params=st.none() | st.floats(0.5, 400),
    memory=st.none() | st.floats(0.01, 2),
    family=st.sampled_from(list(FAMILIES)),
)
def test_the_choice_keeps_every_limit_and_every_row_has_a_reason(latency, params, memory, family):
    try:
        found = plan(family, Limits(latency, params, memory), ROOF, counters=COUNTERS)
    except UserError:
        return
    choice = found.choice
    assert choice.latency_ms <= latency
    assert params is None or choice.params_m <= params
    assert memory is None or choice.memory_gib <= memory
    assert choice.size % (2**choice.stages) == 0
    assert all(row.reason for row in found.rows)
    assert any(row.kept and row.candidate == choice for row in found.rows)


@given(low=st.floats(0.1, 4000), high=st.floats(0.1, 4000))
def test_more_time_never_means_a_smaller_input(low, high):
    low, high = sorted((low, high))
    try:
        before = chosen(latency_ms=low)
    except UserError:
        return
    after = chosen(latency_ms=high)
    kinds = [rung[0] for tier in FAMILIES["yolov4"] for rung in tier]
    assert kinds.index(after.model) >= kinds.index(before.model)
    assert after.size >= before.size or "tiny" in before.model


def test_the_roofline_by_hand():
    small = Measurement("small", made_up(10, 20, 10**9, 0), 2)  # 5000 GFLOP/s, 2 x 2 GB / 2 ms = 1000 GB/s, 100 us
    large = Measurement("large", made_up(100, 100, 2 * 10**9, 0), 5)  # 20000 GFLOP/s, 4 GB / 5 ms = 800 GB/s, 50 us
    roof = roofline_through([small, large], number_bytes=2)
    assert (roof.gflops_per_s, roof.gbytes_per_s, roof.us_per_convolution) == (20000, 1000, 50)
    # The small graph: 0.5 ms of arithmetic, 2 of traffic, 1 of starts; the large one: 5, 4, 5
    assert roof.bounds_ms(small.footprint) == {"arithmetic": 0.5, "traffic": 2, "starts": 1}
    assert roof.bounds_ms(large.footprint) == {"arithmetic": 5, "traffic": 4, "starts": 5}
    assert roof.ms(small.footprint) == 2
    assert roof.covers(made_up(50))
    assert not roof.covers(made_up(101))


@given(
    measured=st.lists(
        st.builds(
            Measurement,
            st.just("graph"),
            st.builds(
                made_up,
                st.floats(1, 2000),
                st.integers(10, 300),
                st.integers(10**6, 10**10),
                st.integers(10**6, 10**9),
            ),
            st.floats(0.1, 500),
        ),
        min_size=1,
        max_size=6,
        unique_by=lambda m: round(m.footprint.gflops, 3),  # equal work measured at two speeds has no single answer
    )
)
def test_a_measured_graph_is_predicted_at_its_measured_time(measured):
    roof = roofline_through(measured, 2)
    for m in measured:
        assert roof.ms(m.footprint) == pytest.approx(m.ms)
        assert max(roof.bounds_ms(m.footprint).values()) <= m.ms * (1 + 1e-9)


def test_real_graphs_are_counted_and_chosen():
    tiny = count("yolov4-tiny")
    roof = roofline_through([Measurement("yolov4-tiny", tiny, 10)], 2)
    found = plan("yolov4", Limits(10), roof)
    assert (found.choice.model, found.choice.width) in {("yolov4-tiny", 1.0), ("yolov4-tiny-3l", 1.0)}
    assert found.choice.latency_ms <= 10

"""NMS as part of an ONNX graph, with the result of `yolo_core.evaluate.nms`.

ONNX's NonMaxSuppression counts per image and class. Its result is therefore cut to the best `max_detections` of each
image over all classes, by operators that exist since opset 11.

Shapes: B images, n rows of NonMaxSuppression (image, class, box row), m kept of them.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from yolo_core.atomic import replaced
from yolo_core.deploy.graph import package
from yolo_core.deploy.onnx import write_checked
from yolo_core.evaluate.suppression import Suppression

if TYPE_CHECKING:
    import onnx

NUM_OUTPUTS_SINCE = 18  # opset in which Split got `num_outputs`; before, parts are equal by default


class _Nodes:
    """Appends named nodes and constants to a graph."""

    def __init__(self, graph: "onnx.ModelProto") -> None:
        self.graph = graph.graph
        self.opset = {entry.domain: entry.version for entry in graph.opset_import}[""]

    def constant(self, name: str, value: object, kind: type) -> str:
        onnx = package("onnx", "export")
        self.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value, kind), f"nms/{name}"))
        return f"nms/{name}"

    def add(self, kind: str, inputs: list[str], *outputs: str, **attributes: object) -> str:
        """Append a node; returns its first output."""
        onnx = package("onnx", "export")
        node = onnx.helper.make_node(kind, inputs, list(outputs), name=f"nms/{outputs[0]}", **attributes)
        self.graph.node.append(node)
        return outputs[0]

    def columns(self, source: str, output: str, start: int, end: int) -> str:
        """source[..., start:end] of an array (B, N, columns)."""
        bounds = {"from": start, "to": end, "axis": 2}
        return self.add(
            "Slice", [source, *(self.constant(f"{output}_{k}", [v], np.int64) for k, v in bounds.items())], output
        )

    def ordered(self, values: str, count: str, output: str, *, descending: bool) -> str:
        """Indices that sort (n,) values; equal values keep their order. count: (1,), n."""
        self.add("TopK", [values, count], f"{output}_values", output, axis=0, largest=int(descending), sorted=1)
        return output


def add_nms(plain: Path, path: Path, suppression: Suppression) -> None:
    """Write the graph of `plain` followed by per-class NMS, at most `max_detections` per image."""
    onnx = package("onnx", "export")
    from onnx import TensorProto

    graph = onnx.load(str(plain))
    nodes = _Nodes(graph)
    boxes, objectness = nodes.columns("predictions", "cxcywh", 0, 4), nodes.columns("predictions", "objectness", 4, 5)
    classes = nodes.columns("predictions", "classes", 5, np.iinfo(np.int64).max)
    scores = nodes.add("Transpose", [nodes.add("Mul", [classes, objectness], "row_scores")], "scores", perm=[0, 2, 1])
    limits = [
        nodes.constant("max_per_class", [suppression.max_detections], np.int64),
        nodes.constant("iou", [suppression.iou], np.float32),
        nodes.constant("conf", [suppression.conf], np.float32),
    ]
    # `center_point_box=1`: boxes are cx, cy, w, h.
    every = nodes.add("NonMaxSuppression", [boxes, scores, *limits], "every_chosen", center_point_box=1)
    chosen = _best_of_each_image(nodes, every, scores, suppression.max_detections)
    image, kind, row = (
        nodes.add("Gather", [chosen, nodes.constant(f"column_{k}", [k], np.int64)], name, axis=1)
        for k, name in enumerate(("image", "class", "row"))
    )
    place = nodes.add("Concat", [image, row], "image_row", axis=1)
    box = nodes.add("GatherND", [boxes, place], "chosen_cxcywh")
    halves = {"num_outputs": 2} if nodes.opset >= NUM_OUTPUTS_SINCE else {}
    centre = nodes.add("Split", [box], "centre", "side", axis=1, **halves)
    half = nodes.add("Mul", ["side", nodes.constant("one_half", 0.5, np.float32)], "half_side")
    score, axis_1 = nodes.add("GatherND", [scores, chosen], "chosen_scores"), nodes.constant("axis_1", [1], np.int64)
    columns = [
        nodes.add("Cast", [image], "image_float", to=TensorProto.FLOAT),
        nodes.add("Sub", [centre, half], "x1y1"),
        nodes.add("Add", [centre, half], "x2y2"),
        nodes.add("Unsqueeze", [score, axis_1], "score"),
        nodes.add("Cast", [kind], "class_float", to=TensorProto.FLOAT),
    ]
    nodes.add("Concat", columns, "detections", axis=1)
    del graph.graph.output[:]
    graph.graph.output.append(onnx.helper.make_tensor_value_info("detections", TensorProto.FLOAT, ["found", 7]))
    with replaced(path) as temporary:
        write_checked(graph, temporary)


def _best_of_each_image(nodes: _Nodes, every: str, scores: str, most: int) -> str:
    """The rows (m, 3) of (n, 3) that are among the `most` best of their image, in their order.

    Sorted by score and then, stably, by image, the rows of an image stand together from its best down. The rank of a
    row there is its place less the number of rows of the images before.
    """
    from onnx import TensorProto

    zero, one = nodes.constant("zero", 0, np.int64), nodes.constant("one", 1, np.int64)
    axis_0, column = nodes.constant("axis_0", [0], np.int64), nodes.constant("image_column", 0, np.int64)
    shape = nodes.add("Shape", [every], "every_shape")
    count = nodes.add("Gather", [shape, axis_0], "every_count")  # (1,)
    total = nodes.add("Squeeze", [count, axis_0], "every_total")
    image = nodes.add("Gather", [every, column], "every_image", axis=1)  # (n,)
    score = nodes.add("GatherND", [scores, every], "every_scores")

    by_score = nodes.ordered(score, count, "by_score", descending=True)
    image_by_score = nodes.add("Gather", [image, by_score], "image_by_score")
    by_image = nodes.ordered(image_by_score, count, "by_image", descending=False)
    order = nodes.add("Gather", [by_score, by_image], "order")
    image_in_order = nodes.add("Gather", [image, order], "image_in_order")

    # Rows before those of each image: (B,)
    batch = nodes.add("Gather", [nodes.add("Shape", ["predictions"], "predictions_shape"), zero], "batch")
    images = nodes.add("Range", [zero, batch, one], "images_in_batch")
    axis_1 = nodes.constant("of_image_axis", [1], np.int64)
    same = nodes.add("Equal", [nodes.add("Unsqueeze", [image, axis_1], "image_as_column"), images], "same_image")
    of_image = nodes.add(
        "ReduceSum", [nodes.add("Cast", [same], "same_image_int", to=TensorProto.INT64), axis_0], "of_image", keepdims=0
    )
    before = nodes.add("CumSum", [of_image, zero], "before_image", exclusive=1)

    place = nodes.add("Range", [zero, total, one], "place")
    rank = nodes.add("Sub", [place, nodes.add("Gather", [before, image_in_order], "first_place")], "rank")
    is_kept = nodes.add("Less", [rank, nodes.constant("most", most, np.int64)], "is_kept")
    kept = nodes.add("Compress", [order, is_kept], "kept", axis=0)
    kept_count = nodes.add("Shape", [kept], "kept_count")
    ascending = nodes.ordered(kept, kept_count, "ascending", descending=False)
    return nodes.add("Gather", [every, nodes.add("Gather", [kept, ascending], "kept_in_order")], "chosen", axis=0)

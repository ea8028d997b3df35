"""The stage `benchmark`: time a detector from image file to boxes in every runtime available on this machine."""

import os
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from components import made_of
from components.deployment.accuracy import ap_of, fastest
from components.deployment.backends import open_backends
from components.deployment.timing import BenchmarkReport, Timing, machine, torch_threads
from components.deployment.versions import versions
from components.evaluation.inputs import load_inputs
from components.files import EXPORT, MANIFEST, SPEED
from components.params import Params
from yolo_core import progress as progress_
from yolo_core.atomic import write_json
from yolo_core.device import pick_device
from yolo_core.models.cost import footprint
from yolo_core.models.fuse import for_inference


def run(
    params: Params,
    *,
    model: str,
    data: Path,
    weights: Path,
    export: Path,
    out: Path,
    drop_levels: int = 0,
    size: int | None = None,
    progress: progress_.Progress = progress_.silent,
) -> dict[str, float | str | None]:
    """Write benchmark.json to `out`.

    Each run reads validation images from their files, letterboxes them, runs inference and applies NMS at
    `export.nms_conf`, as a service would. Batch 1 is always included. Each backend's AP on all validation images is
    measured too, because promotion compares the latency of what was judged. drop_levels, size: see `load_inputs`.
    """
    device, settings = pick_device(params.train.device), params.benchmark
    inputs = {"weights": weights, "manifest": data / MANIFEST}
    made_of.check(export / EXPORT, f"scaled-yolov4 export --model {model}", **inputs)
    loaded, dataset = load_inputs(model, data, weights, device=params.train.device, drop_levels=drop_levels, size=size)
    fused = for_inference(loaded.model)
    suppression = replace(params.evaluate.suppression, conf=params.export.nms_conf)
    timing = Timing(dataset, loaded.size, suppression, settings.warmup, settings.runs, device)
    threads = settings.threads or len(os.sched_getaffinity(0))
    batches = sorted({1, *settings.batches})
    with torch_threads(threads):
        backends = open_backends(fused, loaded.size, export, device=device, threads=threads)
        accuracy = partial(
            ap_of,
            dataset=dataset,
            size=loaded.size,
            batch=batches[-1],
            evaluation=params.evaluate,
            device=device,
            progress=progress,
        )
        cases = [(backend, batch, ap) for backend in backends for ap in [accuracy(backend)] for batch in batches]
        rows = [timing.measure(*case) for case in progress(cases, "benchmark", total=len(cases))]
        measured_on, graph = machine(device, threads), asdict(footprint(loaded.model, loaded.size))
    best = fastest(rows, backends[0], params.export.ap_tolerance)
    report: BenchmarkReport = {
        "model": model,
        "size": loaded.size,
        "device": measured_on,
        "graph": graph,
        "versions": versions("torch", "onnxruntime", "openvino", "tensorrt", "numpy", "opencv-python-headless"),
        "runs": settings.runs,
        "conf": suppression.conf,
        "latency_ms_b1": best and best["total_ms"]["p50"],
        "latency_backend_b1": best and f"{best['backend']} {best['precision']}",
        "rows": rows,
    }
    write_json(out / SPEED, report)
    made_of.record(out / SPEED, **inputs)
    return {
        "ms at batch 1": report["latency_ms_b1"],
        "images/s": best and best["images_per_second"],
        "by": report["latency_backend_b1"],
    }

"""Drills of training, in one process and on two nodes: the results must equal an undisturbed run's, bit for bit."""

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import ray_nodes
from ray_nodes import checkpoint
from small_training import MODEL, STEPS, command

from components.training.results import RESULTS
from tests.drills.grounds import LIMIT_S, TWO, Grounds, same, wait
from tests.drills.report import Found, Lost, Skipped

BITS = ("model.safetensors", "curves.csv")
KILL_AT = 9  # steps; the newest checkpoint is then a few steps old
BETWEEN_SAVES = 4  # maximum steps: every third step, with weight updates every second, and at the end of an epoch
DISK = 6  # times the weights: a checkpoint holds them four times, so there is space for one but not for two


def steps_done(project: Path, name: str) -> int:
    """The step that a training in one process has reached, from its progress log."""
    found = re.findall(rf"train {MODEL}: (\d+)/(\d+),", (project / f"{name}.log").read_text())
    return STEPS - int(found[-1][1]) + int(found[-1][0]) if found else 0


def resumed_at(project: Path, name: str) -> int:
    return json.loads((project / name / "train.json").read_text())["resumed_at_step"]


@contextlib.contextmanager
def until_step(project: Path, name: str, *changes: str, step: int = KILL_AT) -> Iterator[subprocess.Popen]:
    """A training in one process that has just finished that step."""
    with ray_nodes.driver(project, name, *changes) as process:
        ray_nodes.until(lambda: steps_done(project, name) >= step, process, project, name)
        yield process


def again(project: Path, name: str, *changes: str) -> Found:
    """Run the same command again after it has ended, and measure the cost."""
    before = steps_done(project, name)
    (project / f"{name}.log").rename(project / f"{name}-before.log")
    began = time.monotonic()
    with ray_nodes.driver(project, name, *changes) as process:
        wait(lambda: process.poll() is not None or steps_done(project, name) > before, "a step beyond those before")
        seconds = time.monotonic() - began
        ray_nodes.finish(process, project, name)
    return Found(f"{before - resumed_at(project, name)} of {STEPS} steps", seconds)


def end(process: subprocess.Popen, number: int, code: int) -> None:
    process.send_signal(number)
    if process.wait(LIMIT_S) != code:
        raise Lost(f"signal {number} ended it with {process.returncode} instead of {code}")


def process_killed(grounds: Grounds) -> Found:
    whole, project, name = grounds.whole, grounds.project, "killed"
    with until_step(project, name) as process:
        end(process, signal.SIGKILL, -signal.SIGKILL)
    found = again(project, name)
    same(whole, project / name, *BITS)
    return found


def preempted(grounds: Grounds) -> Found:
    whole, project, name = grounds.whole, grounds.project, "preempted"
    with until_step(project, name) as process:
        sent = time.time()
        end(process, signal.SIGTERM, 3)
    written = max(path.stat().st_mtime for path in project.glob(f"{name}-work/train/*/*/checkpoints/step-*/SHA256SUMS"))
    if not sent <= written < sent + 10:
        raise Lost(f"the checkpoint came {written - sent:.1f} s after SIGTERM")
    reached = checkpoint(project, name)["step"]
    found = again(project, name)
    same(whole, project / name, *BITS)
    if resumed_at(project, name) != reached:
        raise Lost(f"it resumed from step {resumed_at(project, name)} instead of {reached}")
    return Found(f"0 of {STEPS} steps", found.seconds)


def checkpoint_damaged(grounds: Grounds) -> Found:
    whole, project, name = grounds.whole, grounds.project, "damaged"
    with until_step(project, name) as process:
        end(process, signal.SIGKILL, -signal.SIGKILL)
    newest = max(project.glob(f"{name}-work/train/*/*/checkpoints/step-*"))
    _flip_a_bit(newest / "tensors.safetensors", at=0.5)
    found = again(project, name)
    if f"{newest} is damaged" not in (project / f"{name}.log").read_text():
        raise Lost("the damage was not reported")
    same(whole, project / name, *BITS)
    return found


def cache_damaged(grounds: Grounds) -> Found:
    whole, project, name = grounds.whole, grounds.project, "pixels"
    with until_step(project, name) as process:
        end(process, signal.SIGKILL, -signal.SIGKILL)
    train, val = sorted((project / f"{name}-work" / "cache").glob("*.pixels"), key=lambda path: -path.stat().st_size)
    os.truncate(train, train.stat().st_size // 2)
    _flip_a_bit(val, at=0)
    found = again(project, name)
    log = (project / f"{name}.log").read_text()
    if not all(f"{path}: {what}" in log for path, what in ((train, "has "), (val, "has no valid header"))):
        raise Lost("the damage was not reported")
    same(whole, project / name, *BITS)
    return Found(f"{found.repeated}, 20 images decoded", found.seconds)


def _flip_a_bit(path: Path, at: float) -> None:
    """Flip a bit of the byte at this fraction of the file."""
    with path.open("r+b") as file:
        file.seek(int(path.stat().st_size * at))
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def disk_full(grounds: Grounds) -> Found:
    whole, project, name = grounds.whole, grounds.project, "full"
    work = project / f"{name}-work"
    work.mkdir()
    size = DISK * (whole / "model.safetensors").stat().st_size
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", work], check=False).returncode:
        raise Skipped("only root can mount a small disk")
    try:
        with ray_nodes.driver(project, name) as process:
            code = process.wait(LIMIT_S)
        log = (project / f"{name}.log").read_text()
        if code != 2 or "No space left" not in log.strip().splitlines()[-1]:
            raise Lost(f"a full disk ended it with exit code {code}: {log[-2000:]}")
        subprocess.run(["mount", "-o", "remount,size=1g", work], check=True)
        found = again(project, name)
        same(whole, project / name, *BITS)
    finally:
        subprocess.run(["umount", work], check=True)
    return Found(f"{found.repeated}; exit code {code} before", found.seconds)


def two_at_once(grounds: Grounds) -> Found:
    whole, project, name = grounds.whole, grounds.project, "both"
    with until_step(project, name, step=4) as first:
        first.send_signal(signal.SIGSTOP)  # it could end before the second has begun
        second = subprocess.run(command(project, name), capture_output=True, text=True, timeout=LIMIT_S, check=False)
        first.send_signal(signal.SIGCONT)
        if second.returncode != 2 or "another run is training" not in second.stderr:
            raise Lost(f"the second ended with {second.returncode}: {second.stderr[-2000:]}")
        ray_nodes.finish(first, project, name)
    same(whole, project / name, *RESULTS[:2])
    return Found("nothing; the second run ends with exit code 2")


# On two nodes


def driver_killed(grounds: Grounds) -> Found:
    return _on_nodes(grounds, "driver-killed", signal.SIGKILL, -signal.SIGKILL)


def driver_preempted(grounds: Grounds) -> Found:
    return _on_nodes(grounds, "driver-preempted", signal.SIGTERM, 3)


def worker_killed(grounds: Grounds) -> Found:
    return _on_nodes(grounds, "worker-killed", signal.SIGKILL)


def worker_stalled(grounds: Grounds) -> Found:
    found = _on_nodes(grounds, "worker-stalled", signal.SIGSTOP)
    if "Timeout (0:00:30)!" not in (grounds.project / "worker-stalled.log").read_text():
        raise Lost("the stacks of the waiting worker were not printed")
    return found


def node_killed(grounds: Grounds) -> Found:
    return _on_nodes(grounds, "node-killed", None)


def head_killed(grounds: Grounds) -> Found:
    """The loss of the head ends Ray's control store and the cluster; another one resumes from the driver's folder."""
    whole, project, name = grounds.whole_of_two, grounds.project, "head-killed"
    with grounds.on_nodes() as nodes, ray_nodes.driver(project, name, *TWO) as process:
        ray_nodes.until(lambda: checkpoint(project, name)["step"] >= 6, process, project, name)
        nodes.cluster.remove_node(nodes.cluster.head_node, allow_graceful=False)
        if process.wait(LIMIT_S) == 0:
            raise Lost("the driver reported success")
        print(f"  the driver ended with exit code {process.returncode}", flush=True)
    reached = checkpoint(project, name)["step"]
    grounds.end_nodes()
    with grounds.on_nodes():
        began = time.monotonic()
        with ray_nodes.driver(project, name, *TWO) as process:
            seconds = _until_beyond(process, project, name, reached, began)
            ray_nodes.finish(process, project, name)
    same(whole, project / name, *BITS)
    return Found(_at_most(reached - resumed_at(project, name)), seconds)


def _on_nodes(grounds: Grounds, name: str, number: int | None, code: int = 0) -> Found:
    """Signal the driver (if it exits with `code` on that) or a worker, or kill a node, and let the work finish."""
    whole, project = grounds.whole_of_two, grounds.project
    with grounds.on_nodes() as nodes:
        with ray_nodes.driver(project, name, *TWO) as process:
            ray_nodes.until(lambda: checkpoint(project, name)["step"] >= 6, process, project, name)
            worker, files = next(iter(nodes.workers().items()))
            reached, began = checkpoint(project, name)["step"], time.monotonic()
            if code:
                end(process, number or 0, code)
                reached = checkpoint(project, name)["step"]
            else:
                os.kill(worker, number) if number else nodes.kill(files)
                nodes.complete()
                seconds = _until_beyond(process, project, name, reached, began)
                ray_nodes.finish(process, project, name)
        if code:
            began = time.monotonic()
            with ray_nodes.driver(project, name, *TWO) as process:
                seconds = _until_beyond(process, project, name, reached, began)
                ray_nodes.finish(process, project, name)
    same(whole, project / name, *BITS)
    lost = max(0, reached - resumed_at(project, name))
    known = number == signal.SIGTERM  # the last step has a checkpoint
    return Found(f"{lost} of {STEPS} steps" if known else _at_most(lost), seconds)


def _at_most(lost: int) -> str:
    """lost: steps from the checkpoint resumed from to the last one seen; others may have followed it."""
    return f"at most {lost + BETWEEN_SAVES - 1} of {STEPS} steps"


def _until_beyond(process: subprocess.Popen, project: Path, name: str, step: int, began: float) -> float:
    """Seconds since `began` until there is a checkpoint of a later step."""
    wait(lambda: process.poll() is not None or checkpoint(project, name)["step"] > step, f"a step after {step}")
    return time.monotonic() - began

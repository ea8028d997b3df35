"""Run the drills and write their results into docs/reliability.md: python -m tests.drills [--only NAME]."""

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from components import telemetry
from tests.drills import report, search, services, stages, training
from tests.drills.grounds import Grounds
from tests.drills.report import Found


class Drill(NamedTuple):
    fault: str
    run: Callable[[Grounds], Found]


DRILLS = {
    "process-killed": Drill("kill -9 of a training", training.process_killed),
    "training-preempted": Drill("SIGTERM during training: exit code 3", training.preempted),
    "checkpoint-damaged": Drill("kill -9, then one bit of the newest checkpoint flips", training.checkpoint_damaged),
    "cache-damaged": Drill(
        "kill -9, then one file of decoded images is truncated and another's header damaged", training.cache_damaged
    ),
    "disk-full": Drill("the disk with unfinished work fills up, then is enlarged", training.disk_full),
    "two-at-once": Drill("a second training starts on the same folders", training.two_at_once),
    "upload-dropped": Drill("connections to the store drop during an upload", services.UPLOADS["dropped"]),
    "upload-corrupted": Drill("bytes change in transit during an upload", services.UPLOADS["corrupted"]),
    "upload-slow": Drill("the store accepts 60 kB/s per connection during an upload", services.UPLOADS["slow"]),
    "download-dropped": Drill("connections to the store drop during a download", services.DOWNLOADS["dropped"]),
    "download-corrupted": Drill("bytes change in transit during a download", services.DOWNLOADS["corrupted"]),
    "download-slow": Drill("the store delivers 60 kB/s per connection during a download", services.DOWNLOADS["slow"]),
    "store-down": Drill("the store goes down during training: exit code 3, then `sync`", services.store_down),
    "tracking-down": Drill("MLflow goes down during training: exit code 3, then `sync`", services.tracking_down),
    "search-killed": Drill("kill -9 of a search, then the last line of its ledger is truncated", search.killed),
    "every-stage-preempted": Drill("SIGTERM in every stage, then the same command", stages.preempted),
    "retrained-twice": Drill("retraining is requested twice, and by two processes at once", stages.retrained_twice),
    "driver-killed": Drill("two nodes: kill -9 of the driver", training.driver_killed),
    "driver-preempted": Drill("two nodes: SIGTERM to the driver: exit code 3", training.driver_preempted),
    "worker-killed": Drill("two nodes: kill -9 of a worker", training.worker_killed),
    "worker-stalled": Drill("two nodes: a worker hangs (SIGSTOP; limit set to 30 s)", training.worker_stalled),
    "node-killed": Drill("two nodes: kill -9 of a raylet, another node joins", training.node_killed),
    "head-killed": Drill("two nodes: kill -9 of Ray's head, then another cluster", training.head_killed),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.drills", description=__doc__)
    parser.add_argument("--only", action="append", choices=DRILLS, metavar="NAME", help="run this drill; repeatable")
    parser.add_argument("--list", action="store_true", help="list the drills without running any")
    parser.add_argument("--dry-run", action="store_true", help="do not write the page")
    given = parser.parse_args()
    telemetry.turn_off()
    if given.list:
        print("\n".join(f"{name:20} {drill.fault}" for name, drill in DRILLS.items()))
        return 0
    names, failed = given.only or list(DRILLS), []
    with tempfile.TemporaryDirectory(prefix="drills-") as folder, Grounds(Path(folder)) as grounds:
        for number, name in enumerate(names, 1):
            print(f"drill {number}/{len(names)} {name}: {DRILLS[name].fault} ...", flush=True)
            row = _row(name, grounds)
            if row is None:
                failed.append(name)
            elif row and not given.dry_run:
                report.write({name: row}, list(DRILLS))
    print(f"{len(names) - len(failed)} of {len(names)} drills lost nothing" + "".join(f"\n  lost: {n}" for n in failed))
    return 1 if failed else 0


def _row(name: str, grounds: Grounds) -> str | None:
    """Run a drill and return its row: "" if it was skipped, None if something was lost."""
    drill, began = DRILLS[name], time.monotonic()
    try:
        row = report.row(name, drill.fault, drill.run(grounds))
    except report.Skipped as reason:
        print(f"  skipped: {reason}", flush=True)
        return ""
    except Exception:  # the other drills still run
        traceback.print_exc()
        print(f"  LOST after {time.monotonic() - began:.0f} s", flush=True)
        return None
    print(f"  {row}\n  the drill took {time.monotonic() - began:.0f} s", flush=True)
    return row


if __name__ == "__main__":
    sys.exit(main())

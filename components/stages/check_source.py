"""The command `check-source`: pin the state of the data, and tell whether training on them would change anything.

It runs before anything is fetched. A revision that can move, such as a branch, is resolved to its current commit.
If the source, the parameters, the code and the image are those of a version that has already been judged, there is
nothing to do, which is recorded in MLflow like every other decision of `retrain`.
"""

from pathlib import Path

from components.datasets import all_sources
from components.lineage.record import judged_alike, lineage, source_fingerprint
from components.params import Params
from components.tracking.connection import connect, reaching
from components.tracking.model_versions import CHALLENGER, CHAMPION, version_of
from components.tracking.runs import stage_run
from components.workspace import OUTPUTS
from yolo_core.atomic import write_json
from yolo_core.progress import Progress, silent


def run(
    params: Params, *, out: Path = OUTPUTS / "check_source.json", force: bool = False, progress: Progress = silent
) -> dict[str, str]:
    """Write <out>: the source, its fingerprint, the parameters that pin it, and the unchanged models with the reasons.

    force: treat everything as changed. Returns the fingerprint and the number of unchanged models. Raises UserError
    if there is no such source, TryAgain while it or MLflow is unavailable.
    """
    found = all_sources.resolve(params)
    fingerprint = source_fingerprint(params, found.fingerprint) if found.fingerprint else ""
    unchanged = {} if force or not fingerprint else _unchanged(params, fingerprint)
    settings = params.prepare
    record = {
        "source": settings.source,
        "location": settings.location,
        "fingerprint": fingerprint,
        "changes": list(found.changes),
        "unchanged": unchanged,
        "nothing_to_do": len(unchanged) == len(params.models),
    }
    write_json(out, record)
    if record["nothing_to_do"]:
        _log(params, unchanged)
    return {"fingerprint": fingerprint[:12] or "unknown", "unchanged": f"{len(unchanged)} of {len(params.models)}"}


def _unchanged(params: Params, fingerprint: str) -> dict[str, str]:
    """The reason for each model that is unchanged."""
    client = connect()
    reasons = {}
    with reaching():
        for model in params.models:
            name = params.registered_name(model)
            judged = {alias: version_of(client, name, alias) for alias in (CHAMPION, CHALLENGER)}
            reasons[model] = judged_alike(judged, lineage(params, model, ""), fingerprint)
    return {model: reason for model, reason in reasons.items() if reason}


def _log(params: Params, unchanged: dict[str, str]) -> None:
    for model, reason in unchanged.items():
        with stage_run(params, None, "retrain", model) as run:
            run.tag(action="unchanged", reason=reason)

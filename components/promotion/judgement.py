"""The judgement of a registered version: what it is compared with, on which images, and the decision that follows."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components import files
from components.datasets.manifest import validation_digest
from components.params import Params
from components.promotion.aliases import ROLLED_BACK_TAG, count_look
from components.promotion.contenders import FORCE, champion_version, check_never_championed, rival_of
from components.promotion.decision import (
    ApComparison,
    Decision,
    LatencyComparison,
    Verdict,
    confidence_at,
    decide,
    too_slow,
)
from components.promotion.evidence import Evidence, detect_again, latency_ratio, registered_evidence
from components.promotion.gain import paired_gain
from components.tracking.model_versions import CHAMPION, VALIDATION_TAG
from yolo_core import progress as progress_
from yolo_core.errors import UserError
from yolo_core.evaluate.coco_metrics import score

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

REGISTER_AGAIN = "run `scaled-yolov4 register` again"


@dataclass(frozen=True)
class Judgement:
    """One version before the gate."""

    params: Params
    """Of the whole project."""

    client: "MlflowClient"
    """Of the registry."""

    model: str
    """The model's name in `params.yaml`."""

    version: "ModelVersion"
    """The version to judge."""

    champion: int | None
    """The champion's version; None while there is none."""

    data: Path
    """The prepared dataset, a folder."""

    progress: progress_.Progress
    """Told of every batch, if the rival has to be evaluated again."""

    @property
    def thresholds(self) -> dict[str, float | int]:
        """What the version is judged by."""
        return self.params.promote.model_dump(exclude={"champions"})

    def decide(self) -> Decision:
        """Compare the version with its rival and decide.

        Raises UserError if `data` is not what the version was evaluated on, or if the rival cannot be compared with.
        """
        version, number, champion = self.version, self.version.version, self.champion
        if version.tags.get(ROLLED_BACK_TAG):
            reason = f"version {number} was rolled back; delete its tag {ROLLED_BACK_TAG} to have it judged again"
            return self.made("hold", reason)
        if champion is None:
            check_never_championed(self.client, version.name)
            return self._unopposed("the first version")
        if version.tags[VALIDATION_TAG] != validation_digest(self.data):
            raise UserError(
                f"{self.data}: not the validation images that version {number} was evaluated on; "
                "run `scaled-yolov4 evaluate` and `register` on them"
            )
        rival = self._rival(champion)
        others = f"version {champion}, the champion, detects other classes"
        if rival is None:
            return self._unopposed(f"a new task: {others}")
        if rival.version == number:
            return self.made("promote", f"the last champion of its classes; {others}")
        return self._against(rival)

    def check_comparable(self) -> None:
        """UserError if the version could not be compared with its rival again; `decide` raises the same one."""
        if self.champion and (rival := self._rival(self.champion)):
            self._evidence(rival)

    def _rival(self, champion: int) -> "ModelVersion | None":
        """The version to compare with; None if no champion detected the same classes."""
        return rival_of(self.client, self.version, champion_version(self.client, self.version.name, champion))

    def _evidence(self, rival: "ModelVersion") -> tuple[Evidence, Evidence]:
        """What the version and its rival were registered with."""
        mine = registered_evidence(self.client, self.version, REGISTER_AGAIN)
        theirs = registered_evidence(self.client, rival, f"move the alias `{CHAMPION}` to another version; {FORCE}")
        return mine, theirs

    def _unopposed(self, reason: str) -> Decision:
        """Promote a version that has no rival, if its AP is known: an unmeasured one is no champion."""
        if registered_evidence(self.client, self.version, REGISTER_AGAIN).ap is None:
            return self.made("inconclusive", f"{reason}, but its validation images have no objects: no AP; {FORCE}")
        return self.made("promote", reason)

    def _against(self, rival: "ModelVersion") -> Decision:
        """Compare with a version that detects the same classes, on the images of the version that is judged."""
        params, settings, version = self.params, self.params.promote, self.version
        mine, theirs = self._evidence(rival)
        same_images = rival.tags[VALIDATION_TAG] == version.tags[VALIDATION_TAG]
        if same_images and theirs.suppression == mine.suppression:
            detections = theirs.detections
        else:
            kept = mine.suppression or params.evaluate.suppression
            detections = detect_again(params, rival, self.data, kept, self.progress)
        annotations, judge = self.data / files.annotation_file("val"), params.evaluate.judge
        before, after = (score(annotations, found, judge=judge) for found in (detections, mine.detections))
        ratio = latency_ratio(theirs, mine)
        look, needed = None, settings.confidence
        if after.figures["AP"] is not None and not too_slow(ratio, settings):  # otherwise no gain could promote it
            look = count_look(self.client, rival, int(version.version))
            needed = confidence_at(look, settings.confidence)
        gain = paired_gain(
            before,
            after,
            samples=settings.bootstrap_samples,
            confidence=settings.confidence,
            seed=params.seed,
            needed=needed,
        )
        verdict, reason = decide(gain, ratio, settings, needed)
        reason += f"; look {look} at version {rival.version}" if look else f"; no look at version {rival.version}"
        if int(rival.version) != self.champion:
            reason += ", the last champion of the same classes"
        if ratio is None:
            reason += "; latencies are not comparable"
        latency = LatencyComparison(theirs.latency_ms, mine.latency_ms, ratio)
        ap = ApComparison.of(before, after, gain, look, needed)
        return self.made(verdict, reason, int(rival.version), ap, latency)

    def made(
        self,
        verdict: Verdict,
        reason: str,
        rival: int | None = None,
        ap: ApComparison | None = None,
        latency: LatencyComparison | None = None,
    ) -> Decision:
        """The record of a verdict. rival: the version compared with."""
        number = int(self.version.version)
        return Decision(
            model=self.model,
            decision=verdict,
            reason=reason,
            champion_before=self.champion,
            champion_after=number if verdict == "promote" else self.champion,
            version=number,
            compared_with=rival,
            ap=ap,
            latency=latency,
            thresholds=self.thresholds,
        )

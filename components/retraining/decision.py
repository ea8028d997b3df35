"""The decision of `retrain`: the rule that makes it from what changed, and its record."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from components.datasets.difference import DatasetDiff
from components.lineage.record import Lineage
from components.params import RetrainParams
from components.retraining.cost import Cost

Action = Literal["unchanged", "evaluate", "fine-tune", "scratch"]
TRAINING: tuple[Action, ...] = ("fine-tune", "scratch")


@dataclass(frozen=True)
class Decision:
    """What is done about one model, with the numbers behind it; the content of `decision.json`."""

    model: str
    """The model's name in `params.yaml`."""
    action: Action
    """What is done: nothing, evaluate the champion, fine-tune it, or train from scratch."""
    reason: str
    """Why, in one sentence."""
    champion: int | None
    """The champion's version; None when there is none."""
    others: tuple[str, ...]
    """What differs from the champion's besides the data: parameters, code, image."""
    diff: DatasetDiff | None
    """How the data differ from the champion's; None without a champion."""
    recall: float | None
    """Best possible recall of the champion's anchors on the training boxes (0..1); None without a champion."""
    lineage: Lineage
    """Digests of what a training would be made of now."""
    weights: str | None
    """Copy of the champion's weights; None unless the action uses them."""
    thresholds: Mapping[str, float]
    """The section `retrain` of the parameters."""
    cost: Cost | None
    """Estimated cost of the training; None when nothing is trained."""
    overrides: tuple[str, ...]
    """Parameters of a fine-tuning, as KEY=VALUE; empty for any other action."""

    def document(self) -> dict[str, object]:
        """The decision as a JSON object."""
        document = asdict(self)
        if self.champion is None:  # then `others` follows what there is no champion for
            last = ("others", "lineage", "weights", "thresholds", "cost", "overrides")
            document |= {name: document.pop(name) for name in last}
        return document


def decide(diff: DatasetDiff, recall: float, settings: RetrainParams, others: Sequence[str] = ()) -> tuple[Action, str]:
    """The action and its reason.

    recall: best possible recall of the champion's anchors on the new training boxes. others: what differs from the
    champion's besides the data: parameters, code, image.
    """
    if diff.classes_added or diff.classes_removed:
        changes = [f"+{name}" for name in diff.classes_added] + [f"-{name}" for name in diff.classes_removed]
        return "scratch", f"different classes: {', '.join(changes)}"
    if others:
        return "scratch", f"{' and '.join(others)} changed since the champion"
    if not diff.anything:
        return "unchanged", "no image or label has changed since the champion"
    if recall < settings.min_recall:
        return "scratch", f"the champion's anchors reach {recall:.4f} of the boxes, under {settings.min_recall:g}"
    if diff.fraction >= settings.scratch_from:
        return "scratch", f"{diff.fraction:.1%} of the images changed, at least {settings.scratch_from:.1%}"
    causes = {
        f"{diff.fraction:.2%} of the images changed": diff.fraction >= settings.fine_tune_from,
        f"the classes shifted by {diff.class_shift:.3f}": diff.class_shift >= settings.class_shift,
        f"the box sizes shifted by {diff.size_shift:.3f}": diff.size_shift >= settings.size_shift,
    }
    if any(causes.values()):
        return "fine-tune", " and ".join(cause for cause, holds in causes.items() if holds)
    return "evaluate", f"only {diff.fraction:.2%} of the images changed, too few for fine-tuning"

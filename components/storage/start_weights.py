"""The weights that a training starts from, where they are in the object store."""

from components.params import ModelOverrides, Params
from components.storage.location import is_remote
from yolo_core.progress import Progress, silent


def with_local_weights(params: Params, model: str, progress: Progress = silent) -> Params:
    """The parameters with a working copy in place of an address as the starting weights of `model`.

    Raises UserError when there is no such object, TryAgain when the store is unavailable.
    """
    weights = params.train_settings(model).weights
    if not weights or not is_remote(weights):
        return params
    from components.storage.stage_paths import local_copy  # boto3 takes time

    own = params.train.per_model.get(model, ModelOverrides())
    own = own.model_copy(update={"weights": local_copy(weights, progress)})
    train = params.train.model_copy(update={"per_model": {**params.train.per_model, model: own}})
    return params.model_copy(update={"train": train})

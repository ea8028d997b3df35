"""KFP artifacts: their names from the stage table, and their addresses for processes that KFP does not pass them to."""

from kfp import dsl

from components.stage_row import Input, Stage
from components.stage_table import get_stage
from yolo_core.errors import UserError


def is_collected(stage: Stage, given: Input) -> bool:
    """Whether an input of a stage collects the results of all models."""
    return get_stage(given.stage).per_model and not stage.per_model


def artifact_of(stage: Stage, given: Input) -> str:
    """The name of the artifact that an input is read from."""
    name = get_stage(given.stage).result.artifact
    return f"{name}s" if is_collected(stage, given) else name


def address(artifact: dsl.Artifact) -> str:
    """A path on this machine if the run is local, else an address in the object store."""
    return store_address(artifact) if "://" in artifact.uri else artifact.path


def store_address(artifact: dsl.Artifact) -> str:
    """An artifact's address in the object store. KFP's own store speaks S3 whatever its URI scheme."""
    scheme, _, path = artifact.uri.partition("://")
    if scheme not in ("s3", "minio"):
        raise UserError(f"{artifact.uri}: only s3:// can be read here; set the pipeline root to an s3:// address")
    return f"s3://{path}"

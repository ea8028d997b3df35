"""Where KFP's artifacts lie for those that KFP does not hand them to."""

from kfp import dsl

from yolo_core.errors import UserError


def address(artifact: dsl.Artifact) -> str:
    """A path on this machine where the run is local, else an address in the object store."""
    return store_address(artifact) if "://" in artifact.uri else artifact.path


def store_address(artifact: dsl.Artifact) -> str:
    """Where an artifact lies in the object store. KFP's own store speaks S3 whatever its addresses are called."""
    scheme, _, place = artifact.uri.partition("://")
    if scheme not in ("s3", "minio"):
        raise UserError(f"{artifact.uri}: only s3:// can be read here; set the pipeline root to a place there")
    return f"s3://{place}"

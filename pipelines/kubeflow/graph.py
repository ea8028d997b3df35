"""A compiled pipeline, read from its file."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import yaml

from yolo_core.errors import UserError


@dataclass(frozen=True)
class Graph:
    path: Path
    name: str
    """Name of the pipeline."""

    digest: str
    """Digest of the file's text."""

    parameters: frozenset[str]
    """Names of the parameters it takes."""

    @classmethod
    def read(cls, path: Path) -> "Graph":
        """Raises UserError for a file that is not a compiled pipeline."""
        try:
            text = path.read_text(encoding="utf-8")
            spec = next(yaml.load_all(text, yaml.CSafeLoader))
            name = spec["pipelineInfo"]["name"]
            inputs = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        except (OSError, ValueError, KeyError, TypeError, StopIteration, yaml.YAMLError):
            raise UserError(f"{path}: not a compiled pipeline; run `scaled-yolov4 pipeline compile`") from None
        return cls(path, name, hashlib.sha256(text.encode()).hexdigest()[:16], frozenset(inputs))

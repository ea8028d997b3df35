"""A Kubeflow Pipelines server: versions, runs and schedules, and following a run."""

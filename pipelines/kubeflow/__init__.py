"""A Kubeflow Pipelines server: versions, runs and schedules, and a run as it happens."""

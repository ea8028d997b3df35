"""The Kubeflow pipeline: its steps, its graph, its compilation and its local run."""

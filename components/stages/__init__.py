"""The stages of the pipeline: each module's `run` is one stage."""

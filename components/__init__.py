"""The stages of the pipeline, one module each, and the command line over them."""

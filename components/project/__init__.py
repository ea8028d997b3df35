"""A project's files: what `scaled-yolov4 init` proposes for a dataset and a machine, and how it writes that."""

"""The stages of `components` wired as the Kubeflow pipeline `scaled-yolov4-full`."""

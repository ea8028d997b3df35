"""Datasets: sources, the check of images and boxes, the index of checked images, the manifest, and differences."""

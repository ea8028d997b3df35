"""From a COCO folder to batches: annotations, decoding, letterbox, mosaic augmentation and the loaders."""

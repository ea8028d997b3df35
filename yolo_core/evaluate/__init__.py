"""From decoded predictions to COCO figures: suppression, test-time augmentation, prediction, scoring."""

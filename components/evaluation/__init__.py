"""Measuring a trained detector on validation images, for every stage that does."""

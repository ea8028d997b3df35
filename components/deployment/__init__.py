"""Exported graphs: made, checked against PyTorch, opened and timed."""

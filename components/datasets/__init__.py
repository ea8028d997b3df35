"""Data sets: sources, checks, the prepared folder with its manifest, and differences between two of them."""

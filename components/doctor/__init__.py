"""Checks of a machine, or of a platform, before hours of work depend on it."""

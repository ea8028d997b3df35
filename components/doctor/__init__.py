"""Checks before hours of work depend on them: what a check is, this machine's, and those of AWS."""

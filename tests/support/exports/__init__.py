"""Writes data sets as the tools that people label with export them, to be read back: one module per format."""

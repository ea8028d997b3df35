"""An object store and a tracking server on loopback, for development and tests."""

"""The object store and the tracking server on this machine's loopback: for development and for the tests."""

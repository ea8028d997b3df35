"""The object store (S3) and the web: verified transfers that resume, synchronised folders, stages on remote paths.

`location` parses addresses, `client` connects, `upload` and `download` move one file and `folder` many, `checksums`
knows S3's, `stage_paths` gives the stages local working copies. `web` downloads over HTTP, `start_weights` gives the
weights to start from, wherever they are.
"""

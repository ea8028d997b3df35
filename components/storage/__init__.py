"""The object store (S3): places there, transfers that resume and are verified, folders in step, stages on remote paths.

`location` names places, `client` speaks to the store, `transfer` moves one file, `folder` many, `stage_paths` gives
the stages local working copies.
"""

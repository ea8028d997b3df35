"""MLflow: the connection, the tree of runs, the journal, the registry, lineage and champions."""

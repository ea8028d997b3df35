"""Hyperparameter evolution: the search, its trials, the confirmation of the winner, and the ledger of all of them."""

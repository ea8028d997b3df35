"""Whether changed data call for a new training: the decision, its cost, its page and the champion it starts from."""

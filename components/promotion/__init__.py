"""The gate for the champion's place: the decision, the evidence it rests on, and the aliases that record it."""

"""What the registry serves: the code that is logged with a model."""

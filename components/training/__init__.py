"""What the stage `train` consists of: its configuration, where it runs, what a worker does, its results."""

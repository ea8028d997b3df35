"""Progress and log on the terminal, metrics for Prometheus, and the thread that repeats work."""

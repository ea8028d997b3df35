"""What running work tells about itself: progress on the terminal, metrics for Prometheus."""

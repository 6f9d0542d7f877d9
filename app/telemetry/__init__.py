"""What the service tells of itself: logs, metrics, and one line for each request."""

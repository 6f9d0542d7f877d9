"""What stands between WSGI and a view; it knows nothing of models."""

"""What stands between WSGI and a view, whatever model answers: so far, which path is meant."""

"""What stands between WSGI and a view: where a request is for, and how its body becomes rows."""

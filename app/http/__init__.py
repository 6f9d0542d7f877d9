"""Between WSGI and a view: request context, admission, fast path, bodies, errors, OpenAPI."""

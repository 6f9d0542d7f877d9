"""Commands of ``flask --app wsgi``, one module a noun; ``app/cli.py`` lists them."""

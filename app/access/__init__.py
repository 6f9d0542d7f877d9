"""Access control: API keys, scopes, rate limits and CORS.

It knows nothing of Flask; `app.http.admission` calls it for each request.
"""

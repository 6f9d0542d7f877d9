"""Who may ask for what, and how often: keys, the rate of each caller, origins.

It knows nothing of Flask; `app.http.admission` asks it for each request.
"""

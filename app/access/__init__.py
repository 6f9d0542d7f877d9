"""Who may ask for what, and how often: keys, the rate of each caller, origins, security headers.

It stands in front of everything that is served and knows nothing of Flask; `app.front` asks it.
"""

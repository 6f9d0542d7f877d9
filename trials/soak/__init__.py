"""The soak: a service under load for long, with everything that goes wrong in a service's life."""

"""Protocols: between the bytes on the wire and the arrays inside, a room for each."""

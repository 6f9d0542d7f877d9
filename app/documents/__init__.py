"""Files that people write and programs replace: text, TOML, structs, suggestions, locks.

Nothing in this package knows what a file is for; it imports nothing of the other rooms.
"""

"""Holds what more than one process knows. It imports the errors and types of the package, and nothing else of it."""

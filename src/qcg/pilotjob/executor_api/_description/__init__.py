"""Turns what a user wrote into descriptions that a manager can run. It has no thread, no socket and no process."""

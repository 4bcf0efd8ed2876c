"""Starts the processes of jobs on one machine and waits for their ends, for the manager and for the agent of a node."""

"""Runs one iteration of a job, here or on the nodes of an allocation. Its code runs in the manager's process."""

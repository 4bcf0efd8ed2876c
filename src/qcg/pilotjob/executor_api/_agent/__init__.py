"""Runs on each node of an allocation: the agent, which starts jobs there, and its messages."""

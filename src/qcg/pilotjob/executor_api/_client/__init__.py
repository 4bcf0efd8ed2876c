"""Connect an executor to its manager, in the user's process. The picture of the threads is in dispatcher.py."""

"""What runs in the user's process beside the user's own threads; the picture is in dispatcher.py."""

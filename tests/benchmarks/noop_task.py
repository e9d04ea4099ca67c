"""The task that does nothing: what is left is the cost of running it."""

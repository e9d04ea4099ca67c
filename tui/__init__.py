"""What people see of pilothouse: the command line, and the dashboard that it opens.

Everything here goes through the door of `runner_core`; nothing behind it is imported.
"""

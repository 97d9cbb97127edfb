"""The command line is a contract: exit codes, JSON, messages that say what to do, no traceback."""

"""Tests of the command line as a contract: exit codes, JSON, helpful messages, no traceback."""

"""Tests of the command line as a contract.

The contract: exit codes, JSON, messages that say how to solve the problem, and no traceback.
"""

"""Calls by signal handlers and finalizers, in the middle of every other call of the same thread.

README.md beside this file has what is promised, the ways in which such calls come, and the counts.
"""

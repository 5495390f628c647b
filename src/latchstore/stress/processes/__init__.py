"""Runs the harness on several processes, each with several threads, on one store.

``shared.py`` defines what a store must provide for that. ``team.py`` is the parent, which starts, watches,
kills and replaces processes and joins their histories; ``member.py`` is the code of a process, ``records.py``
their messages.
"""

"""The harness over several processes, each of several threads, on one store.

``shared.py`` has what a store must offer for that, ``team.py`` the parent, which starts, watches, kills and
replaces processes and puts their histories together, ``member.py`` what runs in each of them, ``records.py``
what they send each other.
"""

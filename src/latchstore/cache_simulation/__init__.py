"""The command ``cache-sim``: simulates the hit ratios of eviction policies on traces of requests.

`traces` has the sources of requests, `recording` a trace that can be replayed, `contestants` the compared
policies, `simulation` the comparison, `report` and `plot` its output, `command` the command.

It is a program: only the command line imports it. It imports the policies of the cache and the packages below
them. Begin with ``simulation.py``.
"""

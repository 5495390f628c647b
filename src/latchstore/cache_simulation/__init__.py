"""The command ``cache-sim``: what part of a trace's requests each eviction policy would have answered.

`traces` has where requests come from, `recording` a trace that can be run again and again, `contestants`
the policies that are compared, `simulation` the comparison, `report` and `plot` what is shown of it,
`command` the command.

It is a program: nothing imports it but the command line. It imports the policies of the cache and what is
below them. Begin with ``simulation.py``.
"""

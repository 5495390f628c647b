"""A store on a Redis or Valkey server, shared by any number of threads, processes and machines.

It may import ``contract``, ``delivery`` and ``engine``.
"""

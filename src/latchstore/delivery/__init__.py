"""Delivery of committed changes to listeners and watches.

The dispatcher's thread calls listeners; watches are read at their readers' own pace. This room imports the
contract only. Begin with ``commit_events.py``, which turns a commit into events, and go on with
``dispatcher.py``, whose thread takes them from the queue (``deliveries.py``), and ``emission.py``, the one
loop that calls listeners. Connections are kept by ``event_manager.py`` in the tables of ``registry.py``.
"""

"""Delivery: from a commit to its listeners and watches.

Listeners are called by the dispatcher's thread, watches are read at their readers' own pace. It imports from
the contract. Begin with ``commit_events.py``, which is where a commit becomes events, and go on with
``dispatcher.py``, whose thread takes them from the queue (``deliveries.py``), and ``emission.py``, the one
loop that calls listeners. Who listens is in ``event_manager.py`` and the tables of ``registry.py``.
"""

"""What every store must do, written once; each store's test module subclasses these classes.

A subclass overrides the `store` fixture, and that is all it has to do::

    class TestReading(ReadingContract):
        @pytest.fixture
        def store(self) -> Iterator[AbstractStore]:
            with MyStore(EventManager()) as store:
                yield store

The store is empty and open, and has an event manager of its own.

Its revisions count from 1, and nobody else commits to it. `check` is called when all blocks and snapshots
have ended; a subclass looks there whether the store is left as it should be.

`SharingContract` is for stores that several processes use: it needs a second store over the same entries as
well.

A store that keeps metadata of some types alone has `any_metadata` false.

What a store does not have is not tested: one without events leaves out the contracts of events, delivery and
watches. Tests with the mark ``one_process`` take for granted that the process that runs them makes all
commits, and has published each when the call that makes it returns: they look at the events that are pending,
at the order of a transaction's beginning among the commits, and at writers that wait for a block. A store
whose commits are made elsewhere is tested with ``-m "not one_process"``.
"""

"""What every store must do, written once; each store's test module subclasses these classes.

A subclass overrides the `store` fixture, and that is all it has to do::

    class TestReading(ReadingContract):
        @pytest.fixture
        def store(self) -> Iterator[AbstractStore]:
            with MyStore(EventManager()) as store:
                yield store

The store is empty and open, and has an event manager of its own.
"""

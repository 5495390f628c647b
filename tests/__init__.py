"""The tests of latchstore, file for file as in the package; `contract` is what every store must pass."""

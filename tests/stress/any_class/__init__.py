"""Tests of the harness for any class: `latchstore.stress.Test`."""

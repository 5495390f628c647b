"""Tests of the commands ``inspect`` and ``top``."""

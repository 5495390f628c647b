"""What all tests share: failures inside the contract suite are shown as in any test module."""

import pytest
from hypothesis import settings

# The suite's modules are imported by test modules and not collected, so pytest has to be told.
pytest.register_assert_rewrite("tests.contract")

# How long one example takes says nothing on a machine that does other things, too.
settings.register_profile("latchstore", deadline=None)
settings.load_profile("latchstore")

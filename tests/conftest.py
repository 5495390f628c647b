"""What all tests share: failures inside the contract suite are shown as in any test module."""

import pytest

# The suite's modules are imported by test modules and not collected, so pytest has to be told.
pytest.register_assert_rewrite("tests.contract")

"""The backends for frameworks; `suites` has what runs the frameworks' own tests on them."""

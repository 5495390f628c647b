"""Our store with one thing broken, for the harness to find."""

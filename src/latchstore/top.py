"""`serve`: a small web page that shows the activity of a store, for the process that has it.

``python -m latchstore top`` shows the stores of other processes, in a file or on a server. Open transactions,
waiting threads and listeners are those of the process that serves the page.

Thread safety: threads of the page serve it; they read the store as any thread may.
"""

from latchstore.inspecting.page import Page, serve

__all__ = ["Page", "serve"]

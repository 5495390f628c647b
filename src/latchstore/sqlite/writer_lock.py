"""The lock of the one process that writes."""

from __future__ import annotations

import fcntl
import os
import time

from latchstore.contract.errors import LockTimeoutError


class WriterLock:
    """Held by the process whose thread writes; between the threads of a process ``owner.py`` decides.

    Parameters
    ----------
    path : str
        Of the database.
    """

    def __init__(self, path: str) -> None:
        self._path = f"{path}-writer"
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def acquire(self, purpose: str, timeout: float, notes: str | None = None) -> None:
        """Wait until this process has the lock.

        Raises
        ------
        LockTimeoutError
            If it takes more than `timeout` seconds; negative waits for ever.
        """
        pause, left = 0.0001, timeout
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if left == 0:
                    raise LockTimeoutError(f"{purpose}: no write lock in {timeout:g} s") from None
            if left > 0:
                pause = min(pause, left)
                left = max(0.0, left - pause)
            time.sleep(pause)
            pause = min(2 * pause, 0.003)

    def release(self) -> None:
        """Give it back; nothing happens if this process has not got it."""
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, -1
        if file != -1:
            os.close(file)

    def renew_in_child(self) -> None:
        """Open the file again, in a forked child."""
        self.close()
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __del__(self) -> None:
        self.close()

"""Wake a thread that sleeps on its sockets."""

from __future__ import annotations

import socket

__all__ = ["Alarm"]


class Alarm:
    """Wakes the thread that polls it. Setting it takes no lock, so it can be set anywhere, in a finalizer too."""

    def __init__(self) -> None:
        self._read_end, self._write_end = socket.socketpair()
        self._read_end.setblocking(False)
        self._write_end.setblocking(False)
        self._set = False

    def fileno(self) -> int:
        """Return the descriptor that is readable while the alarm is set."""
        return self._read_end.fileno()

    def set(self) -> None:
        """Wake the thread, now or when it next wants to sleep."""
        if not self._set:
            self._set = True
            try:
                self._write_end.send(b"\0")
            except OSError:
                return  # closed: nobody is left to be woken
            except BaseException:  # an interrupt
                self._set = False
                raise

    def clear(self) -> None:
        """Put the alarm off; the thread has to look at what it was woken for after this."""
        try:
            self._read_end.recv(4096)
        except BlockingIOError:
            return
        self._set = False

    def close(self) -> None:
        """Close both ends."""
        self._set = True
        self._read_end.close()
        self._write_end.close()

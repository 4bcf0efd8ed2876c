"""The connection to the starter, from the side of the manager or an agent: it never waits there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from typing import Any, Callable, List, Optional, Tuple

from qcg.pilotjob.executor_api._processes.starter import Frames

__all__ = ["StarterLink"]

_CHUNK = 262_144
_GATHER_SECONDS = 0.005


class StarterLink:
    """Sends orders to the starter, and hears of it what became of them. Belongs to the loop's thread."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, pid: int, connection: socket.socket, on_news: Callable[[], None]
    ) -> None:
        """`on_news` has to call `news`."""
        self.pid = pid
        self.may_gather: Callable[[], bool] = lambda: False
        self.has_ended = False
        self._loop = loop
        self._connection = connection
        self._on_news = on_news
        self._frames = Frames()
        self._unsent = bytearray()
        self._writing: Optional[asyncio.Handle] = None
        connection.setblocking(False)
        loop.add_reader(connection, self._readable)

    def send(self, *message: Any) -> None:
        """Send a message, together with all that the loop sends in this round."""
        self._unsent += Frames.frame(message)
        if self._writing is None:
            self._writing = self._loop.call_soon(self._write)

    def news(self) -> List[Tuple[Any, ...]]:
        """Return what has come."""
        news: List[Tuple[Any, ...]] = []
        with contextlib.suppress(BlockingIOError):
            while not self.has_ended:
                read = self._receive()
                news += self._frames.messages(read)
                if len(read) < _CHUNK:
                    break
        return news

    def close(self) -> None:
        """End the starter, at once; what it has started is this process's from then on. From any thread."""
        self.has_ended = True
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # the loop's thread has collected it
            os.waitpid(self.pid, 0)

    def _receive(self) -> bytes:
        read = b""
        with contextlib.suppress(ConnectionResetError):
            read = self._connection.recv(_CHUNK)
        if not read:
            self.has_ended = True
            self._loop.remove_reader(self._connection)
        return read

    def _readable(self) -> None:
        if not self.may_gather():
            self._on_news()
        else:
            self._loop.remove_reader(self._connection)
            self._loop.call_later(_GATHER_SECONDS, self._read_gathered)

    def _read_gathered(self) -> None:
        if not self.has_ended:
            self._loop.add_reader(self._connection, self._readable)
        self._on_news()

    def _write(self) -> None:
        self._writing = None
        try:
            del self._unsent[: self._connection.send(self._unsent)]
        except BlockingIOError:
            pass  # there is no room yet
        except (BrokenPipeError, ConnectionResetError):  # its end is told where it is read
            self._unsent.clear()
        if self._unsent:
            self._loop.add_writer(self._connection, self._write)
        else:
            self._loop.remove_writer(self._connection)

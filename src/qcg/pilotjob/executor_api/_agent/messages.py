"""Messages between the manager and the agent of a node: a line of JSON each."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import zlib
from typing import Any, Callable, Dict, Optional

_logger = logging.getLogger(__name__)

_CHUNK = 65536


class Lines:
    """Reads and writes messages on two descriptors, which it owns, without ever waiting for them.

    The stream towards an agent is compressed: descriptions of jobs resemble each other, and srun hands on what is
    longer than a kilobyte in pieces, each of which may wait 40 ms for the receipt of the one before. The stream from an
    agent is not, since a prolog of the site may write something of its own there; what is no message is logged.
    `first` is sent before all messages, as it is.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        source: int,
        target: int,
        on_message: Callable[[Dict[str, Any]], None],
        on_end: Callable[[], None],
        *,
        to_agent: bool,
        first: bytes = b"",
    ) -> None:
        self._loop = loop
        self._source = source
        self._target = target
        self._on_message = on_message
        self._on_end = on_end
        self._deflate = zlib.compressobj() if to_agent else None
        self._inflate = None if to_agent else zlib.decompressobj()
        self._unread = b""
        self._unsent = bytearray(first)
        self._flush: Optional[asyncio.Handle] = None
        self._flush_at = 0.0
        for descriptor in (source, target):
            os.set_blocking(descriptor, False)
        loop.add_reader(source, self._read)
        self._write()

    def send(self, message: Dict[str, Any], delay: float = 0.0) -> None:
        """Write `message`, soon or when there is room; to nobody when the other end has gone.

        What the loop sends in one round goes in one piece. What nobody waits for can be given a `delay`, so that it
        goes with the next message: on the connection of srun, a second small piece in the same direction may wait 40 ms
        for the receipt of the first.
        """
        if self._target < 0:
            return
        line = json.dumps(message).encode() + b"\n"
        if self._deflate is not None:
            line = self._deflate.compress(line) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        self._unsent += line
        now = self._loop.time()
        if delay and self._flush is None:
            self._flush, self._flush_at = self._loop.call_later(delay, self._write), now + delay
        elif not delay:
            if self._flush is not None:
                self._flush.cancel()
            self._flush, self._flush_at = self._loop.call_soon(self._write), now
        elif now > self._flush_at:  # the loop is held up, as by programs that take long to load
            self._write()

    def close_target(self) -> None:
        """End the stream for the other end, which reads its end."""
        if self._target >= 0:
            self._write()
        if self._target >= 0:
            self._drop_target()

    def close(self) -> None:
        """Close both descriptors; nothing is called back any more."""
        self.close_target()
        if self._source >= 0:
            self._loop.remove_reader(self._source)
            os.close(self._source)
            self._source = -1

    def _write(self) -> None:
        self._flush = None
        if self._target < 0:
            return
        if not self._unsent:
            self._loop.remove_writer(self._target)
            return
        try:
            del self._unsent[: os.write(self._target, self._unsent[:_CHUNK])]
        except BlockingIOError:
            pass  # there is no room yet
        except (BrokenPipeError, ConnectionResetError):  # the end of what is read tells whoever has to know
            self._drop_target()
            return
        if self._unsent:
            self._loop.add_writer(self._target, self._write)

    def _drop_target(self) -> None:
        self._loop.remove_writer(self._target)
        os.close(self._target)
        self._target = -1

    def _read(self) -> None:
        try:
            read = os.read(self._source, _CHUNK)
        except BlockingIOError:
            return
        except ConnectionResetError:  # standard input may be a socket, as it is by ssh
            read = b""
        if not read:
            self._loop.remove_reader(self._source)
            self._on_end()
            return
        try:
            self._unread += self._inflate.decompress(read) if self._inflate is not None else read
        except zlib.error as error:  # nothing that follows can be read either
            _logger.error("the stream of messages is damaged: %s", error)  # noqa: TRY400
            self._loop.remove_reader(self._source)
            self._on_end()
            return
        *lines, self._unread = self._unread.split(b"\n")
        for line in lines:
            message = None
            with contextlib.suppress(ValueError):
                message = json.loads(line)
            if isinstance(message, dict):
                self._hand_on(message)
            elif line:
                _logger.warning("not a message: %r", line)

    def _hand_on(self, message: Dict[str, Any]) -> None:
        try:
            self._on_message(message)
        except Exception:  # the messages behind it have nothing to do with that
            _logger.exception("a message could not be handled: %.200r", message)

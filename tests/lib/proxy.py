"""A TCP proxy whose network can be disturbed, for tests."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time


class Proxy:
    """Stands between a client and the ports of managers; ``through`` is what `Allocation` takes as ``tunnel``."""

    def __init__(self):
        self.delay = 0.0
        self.holds = False  # connections stay, and nothing goes through them
        self.refuses = False  # what is opened is closed at once
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._targets = {}
        self._peers = {}
        self._queue = []
        self._ends = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def through(self, host, port):
        """Return where to connect to instead."""
        with self._lock:
            for listener, target in self._targets.items():
                if target[1] == port:
                    return "127.0.0.1", listener.getsockname()[1]
            listener = socket.create_server(("127.0.0.1", 0))
            self._targets[listener] = ("127.0.0.1", port)
            self._selector.register(listener, selectors.EVENT_READ)
            return "127.0.0.1", listener.getsockname()[1]

    def cut(self):
        """Cut all connections."""
        with self._lock:
            for one in list(self._peers):
                self._drop(one)
            self._queue.clear()

    def close(self):
        """End."""
        self._ends = True
        self._thread.join()
        self.cut()
        for listener in self._targets:
            listener.close()
        self._selector.close()

    def _run(self):
        while not self._ends:
            if not self._selector.get_map():
                time.sleep(0.005)
                continue
            ready = [key.fileobj for key, _ in self._selector.select(0.005)]
            with self._lock:
                for one in ready:
                    if one in self._targets:
                        self._accept(one)
                    elif one in self._peers and not self.holds:
                        self._read(one)
                self._forward()
            if self.holds:
                time.sleep(0.005)

    def _accept(self, listener):
        there, _ = listener.accept()
        if self.refuses:
            there.close()
            return
        try:
            here = socket.create_connection(self._targets[listener])
        except OSError:
            there.close()
            return
        for one, other in ((there, here), (here, there)):
            self._peers[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _read(self, one):
        try:
            read = one.recv(65536)
        except OSError:
            read = b""
        if read:
            self._queue.append((time.monotonic() + self.delay, self._peers[one], read))
        else:
            self._drop(one)

    def _forward(self):
        while self._queue and not self.holds and self._queue[0][0] <= time.monotonic():
            _, to, read = self._queue.pop(0)
            if to in self._peers:
                try:
                    to.sendall(read)
                except OSError:
                    self._drop(to)

    def _drop(self, one):
        for end in (one, self._peers.get(one)):
            if end is not None and self._peers.pop(end, None) is not None:
                self._selector.unregister(end)
                with contextlib.suppress(OSError):
                    end.close()

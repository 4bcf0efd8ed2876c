"""Bring a pool and its workers together: a socket, and a file that tells only the user's own processes of it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import struct
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import zmq

from qcg.pilotjob.executor_api._functions.messages import BEGUN, HOLD
from qcg.pilotjob.executor_api._functions.modules import path_here
from qcg.pilotjob.executor_api._shared import python_process
from qcg.pilotjob.executor_api._shared.sockets import make_socket_directory

__all__ = ["Rendezvous"]

_SEEN_SECONDS = 0.001  # in which a worker that does not see yet that it is held has noted that it has begun
_BOOT = (
    python_process.PROTECT_IMPORTS + python_process.READ_ORDERS + "sys.path[:] = orders['protected_path'] or sys.path; "
    "from qcg.pilotjob.executor_api._functions.worker import main; "
    # functions find the user's modules as they do in the program, or last of all where they run: others may write there
    "sys.path[:] = orders['path'] or sorted(_given, key=lambda entry: not entry); "
    "main(orders, int(sys.argv[3]))"
)


class Rendezvous:
    """The ROUTER socket of a hub, with what its workers have to know.

    On one machine the socket is a file in a private directory. Across nodes it is a TCP port; what goes there is
    encrypted, and who does not know the token is not heard. Key and token are in a file for the owner only, never on a
    command line or in an environment.
    """

    def __init__(
        self, directory: Optional[Path], *, across_nodes: bool, ranks: int, several: bool, same_python: bool
    ) -> None:
        """Bind; what workers read and write is in `directory`, or a temporary one.

        Where a worker may get `several` calls at a time, it notes which it has begun.
        """
        self._own = Path(tempfile.mkdtemp(prefix="qcgpj-")) if directory is None else None
        self.directory = directory or self._own or Path()
        self.name = f"functions.{secrets.token_hex(4)}"
        self.token = secrets.token_hex(32)
        self._context = zmq.Context()
        self.socket: "zmq.Socket[bytes]" = self._context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 1000)
        for unlimited in (zmq.SNDHWM, zmq.RCVHWM):
            self.socket.setsockopt(unlimited, 0)
        self._sockets: Optional[Path] = None
        key = ""
        if across_nodes:
            public, secret = zmq.curve_keypair()
            key = public.decode()
            self.socket.curve_secretkey, self.socket.curve_publickey = secret, public
            self.socket.curve_server = True
            port = self.socket.bind_to_random_port("tcp://*")
            address = f"tcp://{socket.gethostname()}:{port}"
        else:
            self._sockets = make_socket_directory(str(self.directory), "functions")
            address = f"ipc://{self._sockets}/functions"
            self.socket.bind(address)
        path = path_here() if same_python else []
        protected = python_process.protected_path() if same_python else []
        orders = {"address": address, "key": key, "token": self.token, "ranks": ranks}
        orders.update(path=path, protected_path=protected)
        self._notes = str(self._sockets / "begun") if several and self._sockets is not None else ""
        orders.update(notes=self._notes, shared=not across_nodes)
        self._orders = self.directory / f"{self.name}.json"
        with os.fdopen(os.open(self._orders, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(orders, file)
            self._owner = os.fstat(file.fileno()).st_uid

    def job(self, number: int, python: str) -> Dict[str, Any]:
        """Return name and execution of the job that is the worker of that number."""
        name = f"{self.name}.{number}"
        return {
            "name": name,
            "execution": {
                "exec": python,
                "args": ["-c", _BOOT, str(self._orders), str(self._owner), str(number)],
                "stdout": str(self.directory / f"{name}.out"),
                "stderr": str(self.directory / f"{name}.err"),
            },
        }

    @property
    def takes_several(self) -> bool:
        """Whether a worker may get several calls at a time."""
        return bool(self._notes)

    def begun(self, number: int) -> Tuple[int, int]:
        """Return which message with several calls a worker has got last, counted, and how many of those have begun."""
        try:
            return BEGUN.unpack_from(Path(f"{self._notes}.{number}").read_bytes())
        except (FileNotFoundError, struct.error):
            return 0, 0

    def holds_at(self, number: int, message: int, call: int) -> bool:
        """Keep a worker from beginning the calls behind the given one of a message; return False when it has begun one.

        It may go on then.
        """
        with open(f"{self._notes}.{number}", "r+b", buffering=0) as notes:
            os.pwrite(notes.fileno(), b"\1", HOLD)
            time.sleep(_SEEN_SECONDS)
            noted, begun = BEGUN.unpack(os.pread(notes.fileno(), BEGUN.size, 0))
            if noted != message or begun <= call:
                return True
            os.pwrite(notes.fileno(), b"\0", HOLD)
            return False

    def send(self, receiver: bytes, *frames: Any) -> None:
        """Send a message to one of a worker's connections."""
        self.socket.send_multipart([receiver, *frames], copy=False)

    def close(self) -> None:
        """Close the socket, and remove what only workers need; what they have written stays."""
        self._context.destroy()
        self._orders.unlink(missing_ok=True)
        for directory in (self._sockets, self._own):
            if directory is not None:
                shutil.rmtree(directory, ignore_errors=True)

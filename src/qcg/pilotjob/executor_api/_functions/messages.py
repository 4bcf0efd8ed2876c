"""Pack and unpack the messages of a pool and its workers: Python objects as pickles, large buffers beside them."""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import struct
from typing import Any, Callable, Iterator, List, Sequence, Set

import zmq

__all__ = [
    "BEGUN", "CALLS", "CONTROL", "DONE", "END", "FIGURES", "HELLO", "HOLD", "RAISED", "TAKEN_BACK", "TAKE_BACK",
    "WELCOME", "Parcel", "cut", "joined", "packed", "unpacked", "use_cloudpickle",
]  # fmt: skip

# from a worker
HELLO, CONTROL, DONE, RAISED, TAKEN_BACK = (bytes([number]) for number in range(5))
# to a worker
WELCOME, CALLS, TAKE_BACK, END = (bytes([number]) for number in range(5, 9))
FIGURES = struct.Struct("=d4q")
"""Of an answer: seconds, and where the call's standard output and error begin and end, -1 when they are no files."""
BEGUN = struct.Struct("=QQ")
"""What a worker notes before each call of several: which message they came with, and how many of them have begun."""
HOLD = BEGUN.size
"""Where in the file of notes there is a byte of the hub's: as long as it is not zero, no other call begins."""

_LARGE = 65_536  # bytes
_HUGE = 1_048_576
_MOST_IN_MEMORY = 64  # buffers, each of which takes a descriptor of this process's; what is beyond is sent
_MAP_FIXED = 0x10  # which Python has no name for
_REFERENCE = b"\0qcgpj: in the memory of another process: "

_in_memory: Set[int] = set()  # descriptors
_dumps: Callable[..., bytes] = pickle.dumps


def use_cloudpickle() -> None:
    """Import the module that pickles functions by value; here that may fail, and later not.

    Raises:
        ImportError: it is not installed.
    """
    global _dumps  # noqa: PLW0603  # it is imported once, when it is needed
    from qcg.pilotjob.executor_api._functions import pickling

    _dumps = pickling.dumps


class Parcel:
    """Holds the frames of a message, and the memory that some of them only refer to."""

    __slots__ = ("_descriptors", "frames")

    def __init__(self) -> None:
        self.frames: List[Any] = []
        self._descriptors: List[int] = []

    def add(self, buffer: "pickle.PickleBuffer", *, shared: bool) -> None:
        """Add a copy of a buffer, which the receiver may get from `shared` memory."""
        raw = buffer.raw()
        if shared and len(raw) >= _HUGE and len(_in_memory) < _MOST_IN_MEMORY:
            # where the program has too many open, or there is no room, it has to be sent
            with contextlib.suppress(OSError):
                self.frames.append(self._in_memory(raw))
                return
        self.frames.append(zmq.Frame(raw, copy=True))

    def _in_memory(self, raw: memoryview) -> bytes:
        descriptor = os.memfd_create("qcgpj")
        self._descriptors.append(descriptor)
        _in_memory.add(descriptor)
        written = 0
        while written < len(raw):
            written += os.write(descriptor, raw[written:])
        return _REFERENCE + f"/proc/{os.getpid()}/fd/{descriptor}".encode()

    def drop(self) -> None:
        """Free the memory, once it was received: the receiver keeps its own hold of it."""
        while self._descriptors:
            descriptor = self._descriptors.pop()
            _in_memory.discard(descriptor)
            os.close(descriptor)

    def __del__(self) -> None:
        self.drop()


def packed(value: Any, *, shared: bool) -> Parcel:
    """Return the pickle of `value`, and behind it the large buffers that are in it: copies, so it may change later.

    Where the receiver can get at this process's memory, what is huge is not sent but `shared`.
    """
    buffers: List[pickle.PickleBuffer] = []
    pickled = _dumps(value, protocol=5, buffer_callback=buffers.append)
    parcel = Parcel()
    # a frame with memory of its own; large bytes by themselves would bring a thread of pyzmq's to life
    parcel.frames.append(pickled if len(pickled) < _LARGE else zmq.Frame(pickled, copy=True))
    for buffer in buffers:
        parcel.add(buffer, shared=shared)
    return parcel


def unpacked(frames: Sequence["zmq.Frame"]) -> Any:
    """Return what was packed; arrays can be written to, as those that were packed could be, and are not copied."""
    pickled, *buffers = frames
    return pickle.loads(pickled.buffer, buffers=map(_memory_of, buffers))


def joined(calls: Sequence[Sequence[Any]]) -> List[Any]:
    """Return the frames of several calls in one, behind one that tells how many each has."""
    counts = [len(frames) for frames in calls]
    return [struct.pack(f"={len(counts)}I", *counts), *(frame for frames in calls for frame in frames)]


def cut(frames: Sequence["zmq.Frame"]) -> Iterator[Sequence["zmq.Frame"]]:
    """Yield the calls that were joined."""
    counts, begin = frames[0].bytes, 1
    for (count,) in struct.iter_unpack("=I", counts):
        yield frames[begin : begin + count]
        begin += count


def _memory_of(frame: "zmq.Frame") -> Any:
    if len(frame.buffer) >= _LARGE:
        return frame.buffer
    content = bytearray(frame.buffer)  # a small message has a piece of what has come, anywhere in it
    if not content.startswith(_REFERENCE):
        return content
    with open(content[len(_REFERENCE) :].decode(), "rb") as file:
        return _mapped(file.fileno())


def _mapped(descriptor: int) -> mmap.mmap:
    """Return the memory of a descriptor, which may be closed: a mmap of a file would keep one, as long as there is it.

    So the memory takes the place of another one that has no file.
    """
    import ctypes

    size = os.fstat(descriptor).st_size
    memory = mmap.mmap(-1, size)
    place = ctypes.c_char.from_buffer(memory)
    function = ctypes.CDLL(None, use_errno=True).mmap
    function.restype = ctypes.c_void_p
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    # private: what the receiver changes is no concern of the sender's, who may have to send it again
    rights, kind = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | _MAP_FIXED
    address = ctypes.addressof(place)
    if function(address, size, rights, kind, descriptor, 0) != address:
        raise OSError(ctypes.get_errno(), "memory of another process cannot be had")
    return memory

"""Allocations that an executor gets by itself: what is behind ``QCGPJExecutor(allocation=...)``.

::

    login node                                                   first node of the allocation
    ---------------------------------------------------          -----------------------------------------
    user's process                    guard process              pilot: the scheduler's job
      dispatcher's thread               psij -> sbatch ...  -->    the manager (_manager/), as anywhere,
        GuardProcess  <--- lines, a pipe ---  watches queue and files      with two TCP sockets more
          starts and ends it            ends the allocation            ^        |
        RemoteChannel  <------------- TCP, CurveZMQ -----------------> requests, events

    <wd>/.qcgpjm-service-<id>/          shared by both sides, for the user only
        keys.json                       of both sides, made for this run
        pilot.<n>.json, .jsonl          the orders of allocation n, and what its pilot says
        track.*, jobs.report            as of every run: the next allocation's manager takes it up

Who ends what: the user's process ends the guard by closing its standard input, however it ends itself; the guard then
cancels the allocation. Should both be killed, or the network be gone for good, the manager notices that nobody talks to
it any more (see _manager/remote_sockets.py). Only what was detached outlives the client.

An allocation's end is the scheduler's word, or the manager's own; a connection that is lost is none: it is made again,
requests without a reply are sent again, and states are asked for of which no event may have come.
"""

"""Run the core's manager, hardened by subclassing, in a process of its own.

::

    user's process                       manager process, in a session of its own
    --------------                       ----------------------------------------------------------------
    stdin  (start, then a lifeline) ---> __main__: end of file here means that the client is gone
    ready  (one JSON line, then EOF) <-- __main__: the end of file there means that this process is gone
    ipc DIR/manager:0  REQ <-> REP  <--> sockets.RequestInterface -> requests.Receiver -> requests.Handler
    ipc DIR/events:0   SUB <-- XPUB <--- sockets.EventPublisher <--- manager.Manager, its scheduling.Scheduling
                                                                       | _execution: LocalJob, or in an allocation
                                                                       |   NodeJob -> NodeLauncher
                                                                       v     -- srun's streams --> _agent: NodeAgent
                                                                     _processes: Children
                                                                       | a socket pair
                                                                       v
                                          starter process, forked:   starter -> the jobs' groups of processes

One asyncio loop in one thread. service.Service owns all of it, the starter included, and ends it: after the last
job (``control``), at once (``finish``, SIGTERM, SIGINT, SIGHUP, the client's end), or because a part of it failed.
Whatever the way, no process of a job outlives it: what a manager that is killed leaves, the starter ends.

Every class here names the faults of the core that it mends (docs/core_faults.md has the list); when the core mends one,
the override can go.
"""

"""Calls of Python functions in processes that QCG-PilotJob keeps: what is behind ``QCGPJExecutor.functions``.

::

    user's process                                       jobs of the executor, on any node
    --------------------------------------------         --------------------------------------------
    FunctionPool.submit: pickles, on the spot            worker: one process, or the ranks of an MPI job
       |  calls                                             |
       v                                                    v
    hub.Hub, a thread, owns calls, workers and     <-->  DEALER: a call, its answer, the next call ...
       the ROUTER socket (rendezvous)                   stdout, stderr: files beside the manager's log
       |  FunctionFuture.set_result, callbacks
       v
    QCGPJExecutor.submit: a job for each worker that is needed

A call is sent to a worker when that has nothing else to do, so what has not been sent can be cancelled. A worker that
dies takes its call with it, and the hub hears of it as of the end of any job. One that has had nothing to do for a
while, or when a job waits for cores, is told to end, which gives its cores back.
"""

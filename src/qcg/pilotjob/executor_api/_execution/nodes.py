"""The nodes of an allocation, seen from the manager: the start of their agents, talk with them, their end."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Protocol, Set

from qcg.pilotjob.config import Config

from qcg.pilotjob.executor_api._execution import pool
from qcg.pilotjob.executor_api._execution.agent_link import NodeLink, agent_command, srun_environment
from qcg.pilotjob.executor_api._execution.gpus import AllocationGpus
from qcg.pilotjob.executor_api._execution.models import make_srun
from qcg.pilotjob.executor_api._execution.settings import Settings
from qcg.pilotjob.executor_api._execution.slurm import AllocationResources, Wanted, words_of
from qcg.pilotjob.executor_api._processes.run_times import wrapper_in
from qcg.pilotjob.executor_api._shared import python_process
from qcg.pilotjob.executor_api._shared.run_files import tail

_logger = logging.getLogger(__name__)

_SILENT_SECONDS = 1.0  # in which agents start without a word to the user
_WORD_SECONDS = 3.0  # between one word and the next
_MOST_FAILURES = 2  # in a row, of starts on a node, for reasons of the node


class AgentsNotStarted(Exception):
    """A node's agent did not start."""


class Listener(Protocol):
    """Has to know what becomes of the nodes: the manager of the jobs."""

    def node_ready(self) -> None:
        """Use a node that is ready."""

    def node_unfit(self, name: str, reason: str) -> None:
        """Send nothing more to a node that does not start what is sent."""

    def drop_node(self, name: str) -> None:
        """Send nothing more to a node that goes."""

    def node_gone(self, name: str, reason: str, patience: float) -> None:
        """Send nothing more to a node that has gone; it is lost in `patience` seconds."""

    def node_lost(self, name: str, reason: str) -> None:
        """Fail the jobs of a node that is no more."""


class NodeLauncher:
    """The agents of all nodes.

    In place of the core's launcher, which never notices that an agent or a node has gone, waits for its answers without
    end, polls, and listens on all interfaces without a password. Can go when that one watches the processes it starts.
    """

    def __init__(self, config: Dict[Any, Any], directory: str, settings: Settings) -> None:
        self._settings = settings
        self._listener: Optional[Listener] = None
        self._config = config
        self._directory = directory
        self._links: Dict[str, NodeLink] = {}
        self._jobs: Dict[str, Any] = {}
        self._sweeps: Dict[str, Set[str]] = {}  # nodes on which something may be left, by job
        self._when_swept: Dict[str, Callable[[], None]] = {}
        self._changed = asyncio.Event()
        self._env = dict(os.environ)
        self._srun_env = srun_environment(str(settings.sockets))
        self.srun = make_srun(Path(directory, "bin"))
        self.gpus = AllocationGpus(self._env, directory, None)
        self._stopping = False
        self._word: Optional[asyncio.TimerHandle] = None
        self._shares = False  # the allocation with others: then it is seen later how much of a node is used

    def tell(self, listener: Listener) -> None:
        """Tell `listener` of the nodes from now on, and of those that were lost before."""
        self._listener = listener
        for link in self._links.values():  # it may be enough when some of them are ready
            if link.lost:
                asyncio.get_event_loop().call_soon(listener.node_lost, link.name, link.lost)

    async def start(self, resources: AllocationResources) -> None:
        """Return when enough agents are ready, by default all of them, and the cores of their nodes are known.

        When a number of cores is wanted, agents are started until there are so many.

        Raises:
            AgentsNotStarted: they are not; none is left then.
        """
        nodes, wanted = list(resources.nodes), self._settings.wanted
        by_slurm = Config.NL_START_METHOD.get(self._config) != "ssh"
        self.gpus = AllocationGpus(self._env, self._directory, resources.granted if by_slurm else None)
        if not nodes:
            raise AgentsNotStarted("the allocation has no node in the range that --slurm-limit-nodes-range-* give")
        for node in nodes:
            node.available = False
        timeout = float(Config.NL_INIT_TIMEOUT.get(self._config))
        self._say_later(_SILENT_SECONDS)
        try:
            if wanted.cores is None:
                starting = self._start_all(resources, wanted)
            else:
                starting = self._start_some(resources, wanted)
            needed = await asyncio.wait_for(starting, timeout)
        except asyncio.TimeoutError:
            raise await self._not_started(f"after {timeout:g} s") from None
        except OSError as error:
            raise await self._not_started(f"({error})") from error
        finally:
            if self._word is not None:
                self._word.cancel()
        if sum(link.ready for link in self._links.values()) < needed:
            raise await self._not_started()
        if wanted.cores is not None:
            await self._share(resources, wanted.cores)
        pool.order_nodes(resources, resources.granted)
        for text in words_of(resources.granted, {link.name: link.found for link in self._links.values() if link.ready}):
            _logger.warning(text)
            self._settings.tell({"note": text})

    async def _start_all(self, resources: AllocationResources, wanted: Wanted) -> int:
        """Start an agent on each node, and return how many of them have to be ready, once they are or cannot be."""
        nodes = list(resources.nodes)
        needed = max(1, int(len(nodes) * min(1.0, float(Config.NL_READY_THRESHOLD.get(self._config)))))
        for node in nodes:
            self._start_agent(node, {**resources.granted[node.name].orders, **wanted.orders})
        await self._until(lambda: self._enough(needed))
        return needed

    async def _start_some(self, resources: AllocationResources, wanted: Wanted) -> int:
        """Start agents that claim cores until there are enough, and return how many have been started."""
        self._shares = True
        left = list(resources.nodes)
        cores = wanted.cores or 0
        while left and (missing := cores - self._claimed()) > 0 and not self._has_lost_any():
            while left and missing > 0:
                node = left.pop(0)
                most = min(missing, node.total)
                missing -= most
                claim = {"most": most, "place": f"{os.environ['SLURM_JOB_ID']}-{node.name}"}
                self._start_agent(node, {**resources.granted[node.name].orders, **wanted.orders, **claim})
            await self._until(lambda: self._enough(len(self._links)))
        return len(self._links)

    def _claimed(self) -> int:
        return sum(len(link.found["cores"]) for link in self._links.values() if link.ready)

    def _has_lost_any(self) -> bool:
        return any(link.lost for link in self._links.values())

    async def _share(self, resources: AllocationResources, cores: int) -> None:
        """Give jobs the cores that were claimed and, should they not be enough, those that others have claimed.

        Raises:
            AgentsNotStarted: there are not so many; no agent is left then.
        """
        links = list(self._links.values())
        for link in links:
            missing = max(0, cores - self._claimed())
            link.found["shared"] = link.found["taken"][:missing]
            link.found["cores"] = [*link.found["cores"], *link.found["shared"]]
        if self._claimed() < cores:
            self._stopping = True
            message = f"resources is {cores}, but the allocation has {self._claimed()} cores; leave it out to use all"
            await self.stop()
            raise AgentsNotStarted(message)
        for link in links:
            self._use(link)
        for node in list(resources.nodes):
            if node.name not in self._links or not node.total:
                pool.drop_node(resources, node.name)

    async def stop(self) -> None:
        """End all agents and return when they have ended, which takes three seconds at the most."""
        self._stopping = True
        for link in self._links.values():
            link.leave()
        await self._until(lambda: all(link.ended for link in self._links.values()))
        for link in self._links.values():
            link.close()

    def why_lost(self, node: str) -> str:
        """Return why a node is no more, an empty string while it is there."""
        return self._links[node].lost if node in self._links else ""

    def run(
        self, job: Any, node: str, name: str, command: List[str], env: Mapping[str, Optional[str]], **order: Any
    ) -> None:
        """Have the agent of `node` start the process of `job`, whose `process_pid` is set and `ended` called."""
        self._jobs[job.jid] = job
        self._links[node].send(
            {
                "run": job.jid,
                "name": name,
                "command": command,
                "env": env,
                **order,
            }
        )

    def end(self, job: Any, node: str, grace: float) -> None:
        """Have the agent of `node` end the processes of `job`."""
        if job.jid in self._jobs and not self._links[node].lost:
            self._links[node].send({"end": job.jid, "grace": grace})

    def sweep(self, job: Any, nodes: List[str], when_done: Callable[[], None]) -> None:
        """Have the agents of `nodes` end what is left of `job` there; call `when_done` when nothing is left."""
        left = {node for node in nodes if not self._links[node].lost}
        if self._stopping or not left:
            when_done()
            return
        self._sweeps[job.jid], self._when_swept[job.jid] = left, when_done
        for node in left:
            self._links[node].send({"sweep": job.jid})

    def swept(self, job: str, node: str) -> None:
        """Take note that nothing of a job is left on a node, or that the node is no more."""
        left = self._sweeps.get(job)
        if left is None:
            return
        left.discard(node)
        if not left:
            del self._sweeps[job]
            self._when_swept.pop(job)()

    def forget(self, job: Any, nodes: List[str]) -> None:
        """Hear no more of a job, one of whose `nodes` has gone; kill what Slurm has started for it on the others."""
        self._jobs.pop(job.jid, None)
        for node in nodes:
            if len(nodes) > 1 and not self._links[node].lost:
                self._links[node].send({"sweep": job.jid})

    # ---- called by the links

    def started(self, job: str, pid: Optional[int]) -> None:
        """Take the news that the agent has taken an order."""
        if pid is not None and job in self._jobs:
            self._jobs[job].process_pid = pid

    def ended(self, job: str, code: int, message: Optional[str]) -> None:
        """Nothing is left of a job."""
        ended = self._jobs.pop(job, None)
        if ended is not None:
            ended.ended(code, message)

    def not_started(self, link: NodeLink, job: str, why: str) -> None:
        """Take the news that a job has not started for a reason of its node; the second time, give the node up."""
        link.failures += 1
        if link.failures == _MOST_FAILURES and self._listener is not None:
            self._listener.node_unfit(link.name, why)
        ended = self._jobs.pop(job, None)
        if ended is not None:
            ended.not_started_here(why)

    def is_ready(self, link: NodeLink) -> None:
        """Take the news that a node can be used."""
        _logger.info("the agent of node %s is ready; its cores are %s", link.name, link.found["cores"])
        if not self._shares:
            self._use(link)
        self._changed.set()

    def _use(self, link: NodeLink) -> None:
        found = self.gpus.found(link.found["gpus"])
        if found.total_count:
            _logger.info("node %s has the GPUs %s", link.name, found.ids)
        pool.set_cores(link.node, link.found["cores"], binds=link.found["binds"])
        pool.provide(link.node, [found])
        link.node.available = True
        if self._listener is not None:
            self._listener.node_ready()

    def is_leaving(self, link: NodeLink) -> None:
        """Send nothing more to a node that will be lost."""
        if self._listener is not None:
            self._listener.drop_node(link.name)

    def is_lost(self, link: NodeLink) -> None:
        """Take the news that a node is no more."""
        if not self._stopping and self._listener is not None:
            self._listener.node_gone(link.name, link.lost, self._settings.loss_seconds)
        for job in list(self._sweeps):
            self.swept(job, link.name)

    def has_changed(self) -> None:
        """Look again at what is waited for."""
        self._changed.set()

    # ---- inside

    def _start_agent(self, node: Any, granted: Dict[str, Any]) -> None:
        config = self._config
        log = Path(self._directory, f"nl-agent-{node.name}.log")
        orders = {
            "umask": self._settings.umask,
            "granted": granted,
            "earlier": self._settings.earlier_sockets,
            "name": node.name,
            "address": self._settings.address,
            "env": self._env,
            "wd": os.path.dirname(self._directory),
            "log_level": Config.LOG_LEVEL.get(config),
            "process_times": bool(Config.ENABLE_PROC_STATS.get(config)),
            "run_times": bool(Config.ENABLE_RT_STATS.get(config)),
            "wrapper": wrapper_in(config),
        }
        link = self._links[node.name] = NodeLink(node, log, self._settings.children, self)
        options = self.gpus.step_options(node.name)
        command = agent_command(node, Config.NL_START_METHOD.get(config), self._directory, options, self._srun_env)
        link.start(command, self._srun_env, python_process.with_path(orders))

    def _say_later(self, seconds: float) -> None:
        self._word = asyncio.get_running_loop().call_later(seconds, self._say_who_is_missing)

    def _say_who_is_missing(self) -> None:
        waiting = {link.name: link.ready for link in self._links.values()}
        if not all(waiting.values()):  # as after a moment in which nothing went on here
            self._settings.tell({"waiting": waiting})
        self._say_later(_WORD_SECONDS)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def _enough(self, needed: int) -> bool:
        links = self._links.values()
        return sum(link.ready for link in links) >= needed or sum(not link.lost for link in links) < needed

    async def _not_started(self, when: str = "") -> AgentsNotStarted:
        missing = [link for link in self._links.values() if not link.ready]
        guilty = [link for link in missing if link.lost] or missing
        message = "\n".join(_obituary(link, link.lost or f"it is not ready {when}") for link in guilty)
        for link in missing:
            link.give_up()
        await self.stop()
        return AgentsNotStarted(message)


def _obituary(link: NodeLink, reason: str) -> str:
    said = "".join(f"\n    | {line}" for line in tail(link.log, 10).splitlines())
    return f"the agent of node {link.name} did not start: {reason}{said}\n    log: {link.log}"


class Agents:
    """The agents of an allocation's nodes, where the core has the class of its jobs to start and stop them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.launcher: Optional[NodeLauncher] = None

    def start_agents(
        self, config: Dict[Any, Any], _wdir: str, aux_dir: str, _nodes: List[Any], _binding: bool, manager: Any
    ) -> None:
        """Start an agent on each node; called by the core's executor, before the loop runs."""
        self.launcher = NodeLauncher(config, aux_dir, self._settings)
        asyncio.get_event_loop().run_until_complete(self.launcher.start(manager.resources))
        manager.resources.keep_core()
        self.launcher.tell(manager)

    async def stop_agents(self) -> None:
        """End the agents; called by the core's executor."""
        if self.launcher is not None:
            await self.launcher.stop()
            self.launcher = None

"""A real Slurm cluster on this machine, for tests: daemons of its own, on loopback, its state in one directory.

``python tests/slurm/cluster.py`` brings one up to try things by hand, and takes it down on Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

sys.path.append(str(Path(__file__).resolve().parents[1] / "lib"))  # as a command, and for the benchmarks
import slurm_cgroups

START_SECONDS = 60.0
STOP_SECONDS = 10.0
_LONGEST_SOCKET = 107  # sun_path has 108 bytes, one of them for the end
_PROGRAMS = ("munged", "slurmctld", "slurmd", "salloc", "srun", "scontrol", "squeue", "scancel", "unshare")

_CONF = """
ClusterName=t
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={directory}/munge.sock
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/{proctrack}
TaskPlugin={task_plugin}
SwitchType=switch/none
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters={consumable}
SchedulerType=sched/backfill
# heterogeneous jobs are started by backfill alone, which else looks twice a minute
SchedulerParameters=batch_sched_delay=0,sched_min_interval=10000,bf_interval=1,bf_hetjob_immediate
MailProg=/bin/true
SlurmdTimeout=10
# a manager that gets SIGTERM ends in peace within this time, on a busy machine too
KillWait=5
InactiveLimit=0
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool.%n
TmpFS={directory}/tmp.%n
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.%n.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd.%n.log
AccountingStorageType=accounting_storage/none
JobRequeue=0
JobCompType=jobcomp/none
JobAcctGatherType=jobacct_gather/none
GresTypes=gpu
{memory}
{nodes}
PartitionName=p Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
PartitionName=debug Nodes=ALL MaxTime=INFINITE State=UP OverSubscribe=NO
PartitionName=short Nodes=ALL MaxTime=2 State=UP OverSubscribe=NO
# what a partition can never run is refused at once
EnforcePartLimits=ALL
"""


# A range for local use: no driver answers there, and Slurm looks at their numbers only. Each device needs its own,
# or the device cgroup could not tell one from the other.
_GPU_MAJOR = 240
_GPUS_AT_MOST = 16  # a node


def why_not(cgroups: bool = False) -> str:
    """Return why no cluster, or none with cgroups, can be brought up here; nothing when it can."""
    missing = [program for program in _PROGRAMS if _program(program) is None]
    if missing:
        return f"no {', '.join(missing)} here; Debian has them in slurm-wlm, slurm-client and munge"
    if os.geteuid() != 0:
        return "only root can give each node a host name of its own"
    probe = subprocess.run(["unshare", "--uts", "--mount", "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        return f"namespaces cannot be made here: {probe.stderr.strip()}"
    return slurm_cgroups.why_not() if cgroups else ""


class ClusterError(Exception):
    """The cluster did not come up."""


class Cluster:
    """A controller and `nodes` nodes named n1, n2 and so on, all of them processes of this machine.

    Nodes have `cpus` CPUs each, or those of a dict of their names. Jobs can share a node, and then have CPUs that do
    not begin at 0. With more CPUs than the machine has, nothing is bound to any. With `threads`, each core has
    that many of the CPUs, and jobs are given whole cores.
    With `cgroups` all steps are in control groups, which confine them to the CPUs (and memory, and GPUs) that they were
    given; it needs nodes with no more CPUs than the machine has. `gpus` has the number of (empty) GPUs by node.
    `cgroups_v2` does it with the machine's own tree, which must be nobody else's: it is for a virtual machine.
    `memory` is the MiB of each node, which jobs then have to share: each CPU has its part of it.
    `settings` are written into slurm.conf in place of what is there.
    """

    def __init__(
        self,
        nodes: int = 2,
        cpus: int | Mapping[str, int] = 2,
        *,
        threads: int = 1,
        cgroups: bool = False,
        cgroups_v2: bool = False,
        start_seconds: float = START_SECONDS,
        gpus: Mapping[str, int] | None = None,
        memory: int = 0,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.node_names = [f"n{number}" for number in range(1, nodes + 1)]
        self.cpus = {name: cpus if isinstance(cpus, int) else cpus.get(name, 2) for name in self.node_names}
        self.threads = threads
        self.cgroups_v2 = cgroups_v2
        self.start_seconds = start_seconds
        self.gpus = dict(gpus or {})
        self.memory = memory
        self.settings = dict(settings or {})
        self.directory = _make_directory()
        self.cgroup = f"qcgpj-{self.directory.name}" if cgroups else ""
        self._claims: list[socket.socket] = []
        self._others: set[str] = set()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SALLOC_"))},
            "SLURM_CONF": str(self.directory / "slurm.conf"),
            "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin",  # where Debian has the daemons
        }

    def start(self) -> None:
        """Return when all nodes run jobs.

        Raises:
            ClusterError: they do not; nothing of the cluster is left then.
        """
        try:
            self._write_files()
            self._start_munge()
            self._run(["slurmctld", "-c"])
            for name in self.node_names:
                self._start_node(name)
            # sinfo calls nodes idle before they can run anything
            everywhere = ["srun", "-Q", f"-N{len(self.node_names)}", "true"]
            self._run(["timeout", "-k", "5", str(self.start_seconds), *everywhere])
        except BaseException as error:
            logs = self._ends_of_logs()
            self.stop()
            if isinstance(error, subprocess.SubprocessError):
                raise ClusterError(f"{error}\n{getattr(error, 'stderr', '')}\n{logs}") from error
            raise

    def stop(self) -> None:
        """End all jobs and daemons, and remove the directory."""
        with contextlib.suppress(subprocess.SubprocessError):
            self._others.clear()
            self.cancel_jobs()
        # the nodes go before the controller, which they would look for, and that before munged, which it needs
        for pattern in ("slurmd.*.pid", "slurmctld.pid", "munge.pid"):
            for pid in list(map(_pid_in, self.directory.glob(pattern))):
                _end(pid)
        end = time.monotonic() + STOP_SECONDS
        while (daemons := self.step_daemons()) and time.monotonic() < end:
            for process in daemons:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()  # one whose slurmd has gone waits for it without end, and ignores SIGTERM
            time.sleep(0.01)
        if self.cgroup:
            slurm_cgroups.remove(self.cgroup)
        for claim in self._claims:
            claim.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def left(self) -> list[str]:
        """Return what is there of a cluster that has been stopped, which should be nothing."""
        groups = slurm_cgroups.groups(self.cgroup) if self.cgroup else []
        return [*map(str, self.step_daemons()), *map(str, groups)]

    def step_daemons(self) -> list[psutil.Process]:
        """Return the daemons of single steps: there should be one a node and step while a step runs."""
        conf = f"SLURM_CONF={self.directory}/slurm.conf".encode()
        found = []
        for process in psutil.process_iter():
            # they write their title over the head of their environment, where psutil stops to read it
            with contextlib.suppress(psutil.NoSuchProcess, OSError):
                if process.name() == "slurmstepd" and conf in Path(f"/proc/{process.pid}/environ").read_bytes():
                    found.append(process)
        return [process for process in found if _lives(process.pid)]

    def cancel_jobs(self) -> None:
        """Revoke the allocations of `jobs`; return when none is left, or after STOP_SECONDS: ask `jobs` then."""
        if not (self.directory / "slurmctld.pid").exists():
            return
        end = time.monotonic() + STOP_SECONDS
        while time.monotonic() < end:
            jobs = self.jobs()
            if not jobs:
                return
            with contextlib.suppress(subprocess.CalledProcessError):  # one of them has ended meanwhile
                self._run(["scancel", *jobs])
            time.sleep(0.05)

    def jobs(self) -> list[str]:
        """Return the ids of the allocations that are not all over, but for those of `start_other_job`."""
        return [job for job in self._run(["squeue", "-h", "-o", "%A"]).split() if job not in self._others]

    def start_other_job(self, *options: str) -> str:
        """Start a job of somebody else with these options of sbatch, who waits until it is cancelled; return its id."""
        job = self._run(["sbatch", "--parsable", "-o", "/dev/null", *options, "--wrap", "exec sleep infinity"]).strip()
        self._others.add(job)
        end = time.monotonic() + START_SECONDS
        while (state := self._run(["squeue", "-h", "-j", job, "-o", "%T"]).strip()) != "RUNNING":
            if time.monotonic() > end:
                raise ClusterError(f"job {job} of options {options} is {state or 'over'}")
            time.sleep(0.02)
        return job

    def cancel_other_jobs(self) -> None:
        """Revoke the allocations of `start_other_job`."""
        self._others.clear()
        self.cancel_jobs()

    def _write_files(self) -> None:
        (self.directory / "state").mkdir()
        ports = [self._claim_port() for _ in range(len(self.node_names) + 1)]
        for name in self.node_names:
            (self.directory / f"spool.{name}").mkdir()
            (self.directory / f"tmp.{name}").mkdir()
        # processors that the machine does not have cannot be bound to
        enough = len(os.sched_getaffinity(0)) >= max(self.cpus.values())
        confined = bool(self.cgroup or self.cgroups_v2)
        if confined and not enough:
            raise ClusterError(f"with cgroups no node can have more CPUs than this machine: {self.cpus}")
        affinity = "task/affinity" if enough else "task/none"
        conf = _CONF.format(
            host=socket.gethostname().partition(".")[0],
            controller_port=ports[0],
            directory=self.directory,
            proctrack="cgroup" if confined else "pgid",
            task_plugin="task/affinity,task/cgroup" if confined else affinity,
            consumable=f"CR_{'CPU' if self.threads == 1 else 'Core'}{'_Memory' if self.memory else ''}",
            # else each job takes all memory, and none can share a node with it
            memory=f"DefMemPerCPU={self.memory // max(self.cpus.values())}" if self.memory else "",
            nodes="\n".join(map(self._node_line, self.node_names, ports[1:])),
        )
        for name, value in self.settings.items():
            line = f"{name}={value}"
            conf, found = re.subn(rf"(?m)^{re.escape(name)}=.*$", lambda _, line=line: line, conf)
            conf += "" if found else f"{line}\n"
        (self.directory / "slurm.conf").write_text(conf)
        if confined:
            limits = {"devices": "yes" if self.gpus else "no", "memory": "yes" if self.memory else "no"}
            template = slurm_cgroups.CONF_V2 if self.cgroups_v2 else slurm_cgroups.CONF
            (self.directory / "cgroup.conf").write_text(template.format(**limits))
        elif self._version() >= (24,):
            # where there are no cgroups its nodes do not start without this; older ones do not with it
            (self.directory / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
        if self.cgroup:
            slurm_cgroups.make(self.cgroup)
        self._make_gpus()
        aliases = " ".join(self.node_names)
        (self.directory / "hosts").write_text(f"127.0.0.1 {aliases}\n{Path('/etc/hosts').read_text()}")

    def _version(self) -> tuple[int, ...]:
        return tuple(map(int, re.findall(r"\d+", self._run(["slurmd", "-V"]))))

    def _node_line(self, name: str, port: int) -> str:
        line = f"NodeName={name} NodeHostname={name} NodeAddr=127.0.0.1 Port={port} CPUs={self.cpus[name]}"
        if self.threads > 1:
            cores = self.cpus[name] // self.threads
            line += f" Sockets=1 CoresPerSocket={cores} ThreadsPerCore={self.threads}"
        if self.memory:
            line += f" RealMemory={self.memory}"
        if self.gpus.get(name):
            line += f" Gres=gpu:{self.gpus[name]}"
        return f"{line} State=UNKNOWN"

    def _make_gpus(self) -> None:
        lines = ["AutoDetect=off"]
        for index, (name, count) in enumerate(self.gpus.items()):
            for number in range(count):
                device = os.makedev(_GPU_MAJOR, index * _GPUS_AT_MOST + number)
                os.mknod(self.directory / f"gpu.{name}.{number}", stat.S_IFCHR | 0o666, device)
            lines.append(f"NodeName={name} Name=gpu File={self.directory}/gpu.{name}.[0-{count - 1}]")
        (self.directory / "gres.conf").write_text("\n".join(lines) + "\n")

    def _claim_port(self) -> int:
        """Return a port that is free, and no other cluster's, which may not listen there yet, until this one stops.

        It is above those of the core's managers, and below those that the system gives away itself.
        """
        while True:
            port = random.randrange(10_000, 32_000)
            claim = socket.socket(socket.AF_UNIX)
            with socket.socket() as probe, contextlib.suppress(OSError):
                claim.bind(f"\0qcgpj-test-port-{port}")
                probe.bind(("127.0.0.1", port))
                self._claims.append(claim)
                return port
            claim.close()

    def _start_munge(self) -> None:
        key = self.directory / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        files = {
            "key-file": key,
            "socket": self.directory / "munge.sock",
            "pid-file": self.directory / "munge.pid",
            "log-file": self.directory / "munge.log",
            "seed-file": self.directory / "munge.seed",
        }
        # --force: its socket may be in a directory that others cannot enter, since it has no other users
        self._run(["munged", "--force", *(f"--{name}={path}" for name, path in files.items())])

    def _start_node(self, name: str) -> None:
        # a host name is what tells one slurmd and its jobs from the other, and /etc/hosts must know it
        script = 'mount --bind "$1" /etc/hosts && hostname "$2" && exec slurmd -N "$2" -b'
        namespaces = ["unshare", "--uts", "--mount"]
        if self.cgroup:
            script = slurm_cgroups.MOUNT + script
            namespaces = ["sh", "-c", slurm_cgroups.ENTER, "sh", self.cgroup, *namespaces, "--cgroup"]
        self._run([*namespaces, "sh", "-c", script, "sh", str(self.directory / "hosts"), name])

    def _run(self, command: list[str]) -> str:
        # the daemons keep their standard streams for a moment: a pipe would be waited for, a file is not
        with tempfile.TemporaryFile("w+", dir=self.directory) as output:
            completed = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment,
                timeout=self.start_seconds + 10,
                check=False,
            )
            output.seek(0)
            said = output.read()
        if completed.returncode:
            raise subprocess.CalledProcessError(completed.returncode, command, stderr=said)
        return said

    def _ends_of_logs(self) -> str:
        logs = sorted(self.directory.glob("*.log"))
        return "\n".join(f"{log.name}: ...{log.read_text(errors='replace')[-2000:]}" for log in logs)


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def _make_directory() -> Path:
    for parent in (tempfile.gettempdir(), "/tmp"):
        if len(os.fsencode(parent)) + len("/slurm-12345678/munge.sock.lock") <= _LONGEST_SOCKET:
            return Path(tempfile.mkdtemp(prefix="slurm-", dir=parent))
    raise ClusterError("no directory with a path short enough for munged's socket")


def _pid_in(path: Path) -> int:
    """Return the process id in a daemon's file, 0 when there is none: a daemon that is starting writes it late."""
    end = time.monotonic() + STOP_SECONDS
    with contextlib.suppress(FileNotFoundError):
        while not (text := path.read_text().strip()) and time.monotonic() < end:
            time.sleep(0.01)
        return int(text or 0)
    return 0


def _end(pid: int) -> None:
    if not pid:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        end = time.monotonic() + STOP_SECONDS
        while _lives(pid) and time.monotonic() < end:
            time.sleep(0.01)
        if not _lives(pid):
            return


def _lives(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return "\nState:\tZ" not in status  # whoever has to collect it may take a moment


def _by_node(text: str) -> dict[str, int]:
    """Read ``n1=2,n2=4``."""
    pairs = (part.partition("=") for part in text.split(","))
    return {name: int(number) for name, _, number in pairs}


def main() -> None:
    """Keep a cluster up until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description="Bring up a Slurm cluster on this machine until Ctrl-C.")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--cpus", default="2", help="of each node, or as n1=1,n2=2")
    parser.add_argument("--threads", type=int, default=1, help="CPUs of each core")
    parser.add_argument("--cgroups-v2", action="store_true", help="the same in a virtual machine with cgroup v2")
    parser.add_argument("--start-seconds", type=float, default=START_SECONDS, help="on slow machines")
    parser.add_argument("--cgroups", action="store_true", help="confine jobs to what they were given (needs cgroup v1)")
    parser.add_argument("--gpus", type=_by_node, metavar="n1=2,n2=4", help="of nodes")
    parser.add_argument("--memory", type=int, default=0, help="MiB of each node, shared out among jobs")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="for slurm.conf")
    parser.add_argument("command", nargs="*", help="run this in the cluster, and end with it; -- goes before it")
    arguments = parser.parse_args()
    reason = why_not(arguments.cgroups)
    if reason:
        sys.exit(reason)
    cluster = Cluster(
        arguments.nodes,
        int(arguments.cpus) if arguments.cpus.isdigit() else _by_node(arguments.cpus),
        threads=arguments.threads,
        cgroups=arguments.cgroups,
        cgroups_v2=arguments.cgroups_v2,
        start_seconds=arguments.start_seconds,
        gpus=arguments.gpus,
        memory=arguments.memory,
        settings={name: value for name, _, value in (setting.partition("=") for setting in arguments.set)},
    )
    # SIGTERM must take the cluster down too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        cluster.start()
        if arguments.command:
            sys.exit(subprocess.run(arguments.command, env=cluster.environment, check=False).returncode)
        print(f"CPUs of nodes: {', '.join(f'{name} {cpus}' for name, cpus in cluster.cpus.items())}; in another shell:")
        print(f"  export SLURM_CONF={cluster.environment['SLURM_CONF']}")
        print(f"  salloc -N{arguments.nodes} --exclusive timeout -k 5 60 python script.py")
        print(f"logs: {cluster.directory}/*.log; Ctrl-C ends it", flush=True)
        signal.pause()
    except KeyboardInterrupt:
        print()
    finally:
        cluster.stop()


if __name__ == "__main__":
    main()

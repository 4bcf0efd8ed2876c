"""A real Slurm cluster on this machine, for tests: daemons of its own, on loopback, its state in one directory.

``python tests/slurm/cluster.py`` brings one up to try things by hand, and takes it down on Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

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
# cgroups need a host that lets us manage them
ProctrackType=proctrack/pgid
TaskPlugin={task_plugin}
SwitchType=switch/none
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=10000
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
{nodes}
PartitionName=p Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
PartitionName=debug Nodes=ALL MaxTime=INFINITE State=UP OverSubscribe=NO
PartitionName=short Nodes=ALL MaxTime=2 State=UP OverSubscribe=NO
# what a partition can never run is refused at once
EnforcePartLimits=ALL
"""


def why_not() -> str:
    """Return why no cluster can be brought up here; nothing when it can."""
    missing = [program for program in _PROGRAMS if _program(program) is None]
    if missing:
        return f"no {', '.join(missing)} here; Debian has them in slurm-wlm, slurm-client and munge"
    if os.geteuid() != 0:
        return "only root can give each node a host name of its own"
    probe = subprocess.run(["unshare", "--uts", "--mount", "true"], capture_output=True, text=True, check=False)
    return f"namespaces cannot be made here: {probe.stderr.strip()}" if probe.returncode else ""


class ClusterError(Exception):
    """The cluster did not come up."""


class Cluster:
    """A controller and `nodes` nodes named n1, n2 and so on, all of them processes of this machine.

    `gpus` says how many GPUs a node has; they are devices like /dev/null.
    """

    def __init__(self, nodes: int = 2, cpus: int = 2, gpus: dict[str, int] | None = None) -> None:
        self.node_names = [f"n{number}" for number in range(1, nodes + 1)]
        self.cpus = cpus
        self.gpus = gpus or {}
        self.directory = _make_directory()
        self._claims: list[socket.socket] = []
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
            self._run(["timeout", "-k", "5", str(START_SECONDS), *everywhere])
        except BaseException as error:
            logs = self._ends_of_logs()
            self.stop()
            if isinstance(error, subprocess.SubprocessError):
                raise ClusterError(f"{error}\n{getattr(error, 'stderr', '')}\n{logs}") from error
            raise

    def stop(self) -> None:
        """End all jobs and daemons, and remove the directory."""
        with contextlib.suppress(subprocess.SubprocessError):
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
        for claim in self._claims:
            claim.close()
        shutil.rmtree(self.directory, ignore_errors=True)

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
        """Revoke all allocations; return when none is left, or after STOP_SECONDS: who has to know asks `jobs`."""
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
        """Return the ids of the allocations that are not all over."""
        return self._run(["squeue", "-h", "-o", "%A"]).split()

    def _write_files(self) -> None:
        (self.directory / "state").mkdir()
        ports = [self._claim_port() for _ in range(len(self.node_names) + 1)]
        for name in self.node_names:
            (self.directory / f"spool.{name}").mkdir()
            (self.directory / f"tmp.{name}").mkdir()
        lines = [
            f"NodeName={name} NodeHostname={name} NodeAddr=127.0.0.1 Port={port} CPUs={self.cpus} State=UNKNOWN"
            + (f" Gres=gpu:{self.gpus[name]}" if name in self.gpus else "")
            for name, port in zip(self.node_names, ports[1:])
        ]
        # processors that the machine does not have cannot be bound to
        enough = len(os.sched_getaffinity(0)) >= self.cpus
        if self.gpus:
            lines.append("GresTypes=gpu")
            self._make_gpus()
        conf = _CONF.format(
            host=socket.gethostname().partition(".")[0],
            controller_port=ports[0],
            directory=self.directory,
            task_plugin="task/affinity" if enough else "task/none",
            nodes="\n".join(lines),
        )
        (self.directory / "slurm.conf").write_text(conf)
        aliases = " ".join(self.node_names)
        (self.directory / "hosts").write_text(f"127.0.0.1 {aliases}\n{Path('/etc/hosts').read_text()}")

    def _make_gpus(self) -> None:
        found = []
        for name, count in self.gpus.items():
            devices = [self.directory / f"{name}.gpu{number}" for number in range(count)]
            for device in devices:
                os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
            found += [f"NodeName={name} Name=gpu File={device}\n" for device in devices]
        (self.directory / "gres.conf").write_text("".join(found))

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
        self._run(["unshare", "--uts", "--mount", "sh", "-c", script, "sh", str(self.directory / "hosts"), name])

    def _run(self, command: list[str]) -> str:
        # the daemons keep their standard streams for a moment: a pipe would be waited for, a file is not
        with tempfile.TemporaryFile("w+", dir=self.directory) as output:
            completed = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment,
                timeout=START_SECONDS + 10,
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


def main() -> None:
    """Keep a cluster up until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description="Bring up a Slurm cluster on this machine until Ctrl-C.")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--cpus", type=int, default=2, help="of each node")
    arguments = parser.parse_args()
    reason = why_not()
    if reason:
        sys.exit(reason)
    cluster = Cluster(arguments.nodes, arguments.cpus)
    # SIGTERM must take the cluster down too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        cluster.start()
        print(f"nodes {', '.join(cluster.node_names)} with {arguments.cpus} CPUs each; in another shell:")
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

"""A Slurm of the tests' own: the real daemons in a folder, with nothing installed or left behind.

Each node has a host name, process ids and mounts of its own. One node listens on this machine's
loopback; several get networks of their own too, in which a program runs by `Cluster.words`. When
the first process of a node ends, the kernel ends all of them and removes what was mounted.
"""

import os
import secrets
import shlex
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

PROGRAMS = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd", "unshare", "ip")
CPUS = 2  # of each node
UNFINISHED = ("PENDING", "RUNNING", "COMPLETING", "REQUEUED", "PREEMPTED", "SUSPENDED")
SECONDS = 60  # that what is waited for may take on a busy machine
# settings that keep a Slurm from waiting; cred_expire is how long a requeued job is held as well
SLURM_CONF = """
ClusterName=tests
SlurmctldHost={host}({controller})
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={controller}
AccountingStoragePort={ports[2]}
AccountingStoragePass={folder}/munge/socket
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=10
ReturnToService=2
SlurmdParameters=config_overrides
GresTypes=gpu
MailProg=/bin/true
{nodes}
PartitionName=main Nodes=ALL Default=YES PriorityTier=1
PartitionName=prio Nodes=ALL PriorityTier=2
"""
SLURMDBD_CONF = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
DbdHost=localhost
DbdAddr={controller}
DbdPort={ports[2]}
SlurmUser=root
StorageType=accounting_storage/mysql
PidFile={folder}/slurmdbd.pid
"""
NETWORK = """
ip link set lo up
ip link add bridge type bridge
ip address add 10.78.0.1/24 dev bridge
ip link set bridge up
echo ready
exec sleep infinity
"""
NODE = """
hostname {name}
mount --bind {folder}/hosts /etc/hosts
"""
NODE_NETWORK = """
ip link set lo up
nsenter --target {network} --net ip link delete {name} 2>/dev/null
ip link add eth0 type veth peer name {name} netns {network}
nsenter --target {network} --net ip link set {name} master bridge up
ip address add {address}/24 dev eth0
ip link set eth0 up
"""
FIRST = ("unshare", "--pid", "--kill-child")  # the process after which all others end with it
NODE_DAEMON = f"exec {' '.join(FIRST)} --mount-proc sh -c 'slurmd -D & wait'"


class Cluster:
    """A running Slurm; a context manager starts and ends it.

    Partition `main` is the default; a job of partition `prio` preempts and requeues those of
    `main`. Each node, n1 and so on, has two CPUs and two devices that stand for GPUs.

    Args:
        folder: An empty one, of the cluster's own, with a short path: sockets are made in it.
        num_nodes: More than one need networks of their own.
    """

    def __init__(self, folder: Path, num_nodes: int = 1) -> None:
        self.folder = folder
        self.words: tuple[str, ...] = ()  # what a command starts with that reaches the cluster
        several = num_nodes > 1
        self.nodes = {
            f"n{index + 1}": f"10.78.0.{index + 11}" if several else "127.0.0.1"
            for index in range(num_nodes)
        }
        self._several = several
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Cluster":
        try:
            self._start_all()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def environment(self) -> dict[str, str]:
        """The variables with which Slurm's commands, and what calls them, find this cluster."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def call(self, *words: str | Path) -> str:
        """What a command prints that must succeed, less the space around it."""
        done = subprocess.run(
            [*self.words, *words],
            env=os.environ | self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{shlex.join(map(str, words))}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def submit(self, command: str, *options: str) -> str:
        """Submits a line of shell; returns the job's id."""
        output = f"--output={self.folder}/%j.log"
        return self.call("sbatch", "--parsable", output, *options, "--wrap", command)

    def log(self, job: str) -> str:
        """What a job has printed."""
        path = Path(self.job(job)["StdOut"])
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def job(self, job: str) -> dict[str, str]:
        """What Slurm says of a job, or of one of an array, as 7_0: JobState, Reason, Restarts."""
        said = self.call("scontrol", "--oneliner", "show", "job", job)
        return dict(pair.partition("=")[::2] for pair in said.split(" ") if "=" in pair)

    def wait(self, job: str, *states: str) -> dict[str, str]:
        """Waits until a job is in one of these states; returns what Slurm says of it."""

        def reached() -> bool:
            state = self.job(job)["JobState"]
            assert state in (*states, *UNFINISHED), f"{self.job(job)}\n{self.log(job)[-3000:]}"
            return state in states

        wait_until(reached, lambda: f"{states}: {self.job(job)}\n{self.log(job)[-3000:]}")
        return self.job(job)

    def restart(self, job: str) -> None:
        """Waits until a job is requeued, lets it start soon, and waits until it has."""
        self.wait(job, "PENDING")
        # in the second in which it was stopped, its node refuses to run it
        self.call("scontrol", "update", f"JobId={job}", "StartTime=now+1")
        self.wait(job, "RUNNING")

    def accounts(self, job: str) -> list[str]:
        """The states that accounting names for a job, as JOB STATE, one for each start of it."""
        options = ("--allocations", "--duplicates", "--noheader", "--parsable2")
        said = self.call("sacct", *options, "--format=JobID,State", "--jobs", job)
        return [line.replace("|", " ") for line in said.splitlines()]

    def pids(self, job: str) -> list[int]:
        """The processes that a job runs now, its batch script included."""
        number = self.job(job)["JobId"]
        wanted = {f"SLURM_JOB_ID={number}", f"SLURM_CONF={self.folder}/slurm.conf"}
        return [pid for pid, variables in environments() if wanted <= variables]

    def fail(self, node: str) -> None:
        """Ends all that runs on a node, as when its power fails, and lets Slurm know."""
        self._kill(node)
        self.call("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")

    def repair(self, node: str) -> None:
        """Starts a node again."""
        self._start_node(node)
        self._wait_for_nodes()

    def clear(self) -> None:
        """Cancels all jobs, and waits until none is left."""
        self.call("scancel", "--user", "root")
        wait_until(lambda: not self.call("squeue", "--noheader"), lambda: self.call("squeue"))

    def _start_all(self) -> None:
        """Starts every daemon and waits until it answers."""
        folder, ports = self.folder, free_ports(3)
        for name in ("munge", "mariadb", "state", *self.nodes):
            (folder / name).mkdir()
        self._configure(ports)
        key = folder / "munge" / "key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        names = ("key-file", "pid-file", "seed-file", "log-file", "socket")
        files = [f"--{name}={folder}/munge/{name.removesuffix('-file')}" for name in names]
        self._start("munged", "munged", "--foreground", "--force", *files)
        database = folder / "mariadb" / "socket"
        files = [f"--datadir={folder}/mariadb", f"--socket={database}", f"--pid-file={database}.pid"]
        options = ("--no-defaults", "--user=root", "--skip-networking", "--skip-grant-tables")
        sizes = ("--innodb-buffer-pool-size=64M", "--innodb-log-file-size=8M")
        self._start("mariadbd", "mariadbd", *options, *files, *sizes)
        if self._several:
            network = self._start("network", "unshare", "--net", "sh", "-ec", NETWORK)
            self.words = ("nsenter", "--target", str(network.pid), "--net")
            self._wait_for("network", lambda: "ready" in self._log("network"))
        for name, path in (("munged", folder / "munge" / "socket"), ("mariadbd", database)):
            self._wait_for(name, lambda path=path: answers(path))  # type: ignore[misc]
        where = ("env", f"MYSQL_UNIX_PORT={database}")
        self._start("slurmdbd", *self.words, *where, "slurmdbd", "-D")
        self._wait_for("slurmdbd", lambda: "started" in self._log("slurmdbd"))
        self._start("slurmctld", *self.words, *FIRST, "slurmctld", "-D", "-i")
        for name in self.nodes:
            self._start_node(name)
        self._wait_for_nodes()

    def _configure(self, ports: list[int]) -> None:
        """Writes the configuration, and the devices that stand for GPUs."""
        values = {
            "folder": self.folder,
            "ports": ports,
            "host": socket.gethostname().partition(".")[0],
            "controller": "10.78.0.1" if self._several else "127.0.0.1",
            "nodes": "\n".join(
                f"NodeName={name} NodeAddr={address} CPUs={CPUS} RealMemory=8000 Gres=gpu:2"
                for name, address in self.nodes.items()
            ),
        }
        (self.folder / "slurm.conf").write_text(SLURM_CONF.format(**values))
        slurmdbd = self.folder / "slurmdbd.conf"
        slurmdbd.write_text(SLURMDBD_CONF.format(**values))
        slurmdbd.chmod(0o600)
        for index in range(2):
            os.mknod(self.folder / f"gpu{index}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        (self.folder / "gres.conf").write_text(f"Name=gpu File={self.folder}/gpu[0-1]\n")
        hosts = [f"{address} {name}\n" for name, address in self.nodes.items()]
        (self.folder / "hosts").write_text("".join(["127.0.0.1 localhost\n", *hosts]))

    def _start_node(self, name: str) -> None:
        """Starts a node: its host name, network and mounts are its own."""
        script = NODE + NODE_NETWORK * self._several + NODE_DAEMON
        values = {"name": name, "folder": self.folder, "address": self.nodes[name]}
        network = self._started["network"].pid if self._several else ""
        own = ("--uts", "--mount", *["--net"] * self._several)
        self._start(name, "unshare", *own, "sh", "-c", script.format(**values, network=network))

    def _start(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        """Starts a process that ends, at the latest, when this one does."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self._started[name] = subprocess.Popen(  # pylint: disable=consider-using-with
                ["setpriv", "--pdeathsig", "KILL", *words],
                env=os.environ | self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self._started[name]

    def _log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def _wait_for(self, name: str, condition: Callable[[], bool]) -> None:
        """Waits until a daemon answers; one that ends is an error at once."""

        def holds() -> bool:
            assert self._started[name].poll() is None, f"{name} ended: {self._log(name)[-3000:]}"
            return condition()

        wait_until(holds, lambda: f"{name}: {self._log(name)[-3000:]}")

    def _wait_for_nodes(self) -> None:
        def idle() -> bool:
            for name in ("slurmctld", *self.nodes):
                assert self._started[name].poll() is None, f"{name}: {self._log(name)[-3000:]}"
            states = subprocess.run(
                [*self.words, "sinfo", "--noheader", "--Node", "--partition=main", "--format=%T"],
                env=os.environ | self.environment(),
                capture_output=True,
                text=True,
                check=False,
            )
            return states.stdout.split() == ["idle"] * len(self.nodes)

        wait_until(idle, lambda: self._log("slurmctld")[-3000:])

    def _kill(self, name: str) -> None:
        process = self._started.pop(name)
        process.kill()
        process.wait()

    def _end(self) -> None:
        """Ends all that was started, the last first."""
        for name in reversed(list(self._started)):
            self._kill(name)


def wait_until(condition: Callable[[], bool], what: Callable[[], str]) -> None:
    """Waits until something holds; after too long, fails with what there is instead."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, f"not so after {SECONDS} s: {what()}"
        time.sleep(0.02)


def answers(path: Path) -> bool:
    """Whether a program listens on a socket."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def free_ports(count: int) -> list[int]:
    """Ports of this machine on which nothing listens."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [taken.getsockname()[1] for taken in sockets]
    for taken in sockets:
        taken.close()
    return ports


def environments() -> list[tuple[int, set[str]]]:
    """Each process that can be looked into, with the variables it was started with."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        found.append((int(folder.name), set(variables.split("\0"))))
    return found

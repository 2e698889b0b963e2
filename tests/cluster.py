"""A Slurm of the tests' own: the real daemons in a folder, with nothing installed or left behind.

Each node has a host name, process ids and mounts of its own. One node listens on this machine's
loopback; several get networks of their own too, in which a program runs by `Cluster.words`. When
the first process of a node ends, the kernel ends all of them and removes what was mounted.
"""

import contextlib
import os
import secrets
import shlex
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd", "unshare", "ip")
CPUS = 2  # of each node
USABLE = ("idle", "mixed", "allocated", "completing")  # of a node; idle* does not answer
UNFINISHED = (
    *("PENDING", "RUNNING", "COMPLETING", "REQUEUED", "PREEMPTED", "SUSPENDED"),
    *("SIGNALING", "CONFIGURING"),
)
SECONDS = 120  # that what is waited for may take on a busy machine
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
SlurmctldParameters=preempt_send_user_signal
KillWait=10
ReturnToService=2
SlurmdParameters=config_overrides
GresTypes=gpu
MailProg=/bin/true
{nodes}
PartitionName=main Nodes=ALL Default=YES PriorityTier=1
PartitionName=grace Nodes=ALL PriorityTier=1 GraceTime=20
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

    Partition `main` is the default. A job of partition `prio` preempts and requeues others: those
    of `main` get the signal that they ask for (sbatch --signal), SIGTERM at once and SIGKILL ten
    seconds later; those of `grace` get theirs, and the rest only after twenty seconds. Each node,
    n1 and so on, has two CPUs and two devices that stand for GPUs.

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

    def __exit__(self, *_: object) -> None:
        self._end()

    def environment(self) -> dict[str, str]:
        """The variables with which Slurm's commands, and what calls them, find this cluster."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def call(self, *words: str | Path) -> str:
        """What a command prints that must succeed, less the space around it."""
        done = self._attempt(*words)
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
            assert state in (*states, *UNFINISHED), f"{state}: {self.log(job)[-3000:]}"
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
        """Cancels all jobs, waits until none is left, and starts the nodes that failed."""
        self.call("scancel", "--user", "root")
        wait_until(lambda: not self.call("squeue", "--noheader"), lambda: self.call("squeue"))
        for name in self.nodes.keys() - self._started.keys():
            self.repair(name)

    def _start_all(self) -> None:
        """Starts every daemon and waits until it answers."""
        folder, ports = self.folder, free_ports(3)
        for name in ("munge", "mariadb", "state", *self.nodes):
            (folder / name).mkdir()
        self._configure(ports)
        self._start_munge()
        database = self._start_database()
        if self._several:
            network = self._start("network", "unshare", "--net", "sh", "-ec", NETWORK)
            self.words = ("nsenter", "--target", str(network.pid), "--net")
            self._wait_for(lambda: "ready" in self._log("network"), "network")
        self._wait_for(lambda: answers(folder / "munge" / "socket"), "munged")
        self._wait_for(lambda: answers(database), "mariadbd")
        where = f"MYSQL_UNIX_PORT={database}"
        self._start("slurmdbd", *self.words, "env", where, "slurmdbd", "-D")
        self._wait_for(lambda: "started" in self._log("slurmdbd"), "slurmdbd")
        self._start("slurmctld", *self.words, *FIRST, "slurmctld", "-D", "-i")
        for name in self.nodes:
            self._start_node(name)
        self._wait_for_nodes()

    def _start_munge(self) -> None:
        """Starts what proves to the daemons who asks."""
        folder = self.folder / "munge"
        (folder / "key").write_bytes(secrets.token_bytes(128))
        (folder / "key").chmod(0o600)
        files = [f"--{name}-file={folder}/{name}" for name in ("key", "pid", "seed")]
        self._start(
            "munged", "munged", "--foreground", "--force", f"--socket={folder}/socket", *files
        )

    def _start_database(self) -> Path:
        """Starts the database of the accounting; returns its socket."""
        folder = self.folder / "mariadb"
        files = (f"--datadir={folder}", f"--socket={folder}/socket")
        sizes = ("--innodb-buffer-pool-size=64M", "--innodb-log-file-size=8M")
        # without grants it needs no tables of its own, which take seconds to make
        options = ("--user=root", "--skip-networking", "--skip-grant-tables")
        self._start("mariadbd", "mariadbd", "--no-defaults", *options, *files, *sizes)
        return folder / "socket"

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

    def _attempt(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        variables = os.environ | self.environment()
        every = [*self.words, *words]
        return subprocess.run(every, env=variables, capture_output=True, text=True, check=False)

    def _wait_for(self, condition: Callable[[], bool], *names: str) -> None:
        """Waits until daemons are ready; one that ends is an error at once."""

        def logs(ended: bool) -> str:
            processes = self._started.items()
            of = [name for name, each in processes if not ended or each.poll() is not None]
            return "".join(f"{name}: {self._log(name)[-3000:]}" for name in of if name in names)

        def holds() -> bool:
            assert not logs(ended=True), logs(ended=True)
            return condition()

        wait_until(holds, lambda: logs(ended=False))

    def _wait_for_nodes(self) -> None:
        words = ("sinfo", "--noheader", "--Node", "--partition=main", "--format=%T")

        def ready() -> bool:
            states = self._attempt(*words).stdout.split()
            return sum(state in USABLE for state in states) >= len(
                self.nodes.keys() & self._started
            )

        self._wait_for(ready, "slurmctld", *self.nodes)

    def _kill(self, name: str) -> None:
        """Ends a daemon: the first process of its own, where it has one, and so all the others."""
        process = self._started.pop(name)
        while process.poll() is None:
            path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            children = [int(word) for word in path.read_text(encoding="ascii").split()]
            for pid in children or [process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)

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

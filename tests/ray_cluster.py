"""A real Ray cluster of several nodes on one machine, in a process of its own: `with nodes(2) as cluster:`.

Run as a script it starts the head (no cores: jobs go to the others) and the nodes, says where the job server is, and kills a node when
told to.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OWN = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_memory_monitor_refresh_ms": "0",
       "RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "4"}          # a dead node is missed after 4 s, not 17


@dataclass
class Nodes:
    """A cluster that runs. `address`: of its job server."""

    address: str
    process: "subprocess.Popen[str]"

    def kill(self, number: int) -> None:
        """A node and all that runs on it, at once. Numbered from 0; the head is none of them."""
        self._say("kill", number)

    def add(self) -> None:
        self._say("add", 0)

    def _say(self, verb: str, number: int) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps([verb, number]) + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline().strip() == "done"


@contextmanager
def nodes(count: int, cpus: int = 1) -> Iterator[Nodes]:
    """So many nodes with so many cores each, beside a head that has none."""
    process = subprocess.Popen([sys.executable, "-m", "tests.ray_cluster", str(count), str(cpus)], cwd=ROOT, text=True,
                               env={**os.environ, **OWN}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin and process.stdout
    try:
        said = next((line for line in process.stdout if line.startswith("http")), "")
        assert said, "no cluster came up"
        yield Nodes(said.strip(), process)
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def main(count: int, cpus: int) -> None:
    from ray.cluster_utils import Cluster

    port = free_port()

    def own() -> dict[str, int]:                                 # two clusters on one machine would share an agent's usual port
        return dict(object_store_memory=100 * 2**20, dashboard_agent_listen_port=free_port())

    head = dict(num_cpus=0, include_dashboard=True, dashboard_port=port, dashboard_host="127.0.0.1", **own())
    cluster = Cluster(initialize_head=True, head_node_args=head)
    there = [cluster.add_node(num_cpus=cpus, **own()) for _ in range(count)]
    cluster.wait_for_nodes()
    print(f"http://127.0.0.1:{port}", flush=True)
    for line in sys.stdin:
        verb, number = json.loads(line)
        if verb == "kill":
            cluster.remove_node(there[number], allow_graceful=False)
        else:
            there.append(cluster.add_node(num_cpus=cpus, **own()))
        print("done", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

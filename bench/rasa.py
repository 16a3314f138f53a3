"""The cluster M3 of RASA (ICDE 2024), a published data set of a real cluster (Apache-2.0), as nodes and pods.

The file comes from github.com/bytedance/research-cluster-dataset. It is not part of this repository:
`RASA_M3` names its path.
"""

import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

_LARGEST_CPU, _LARGEST_MEMORY = 96_000, 512 * 1024
"""Size of the largest machine, in millicores and MiB; the file has shares of a hidden unit."""
MAX_PODS = 110


@dataclass(frozen=True, slots=True)
class RasaPod:
    """A container of the file: millicores, MiB, the service that it belongs to, and the index of its machine."""

    name: str
    service: str
    cpu: int
    memory: int
    machine: int


@dataclass(frozen=True, slots=True)
class RasaCluster:
    """Machines by millicores and MiB, and the pods on them."""

    machines: tuple[tuple[int, int], ...]
    pods: tuple[RasaPod, ...]

    def fuller_than(self, cpu_share: float) -> "RasaCluster":
        """Return the cluster without the machines, and their pods, whose CPU is used less than this share."""
        used = [0] * len(self.machines)
        for pod in self.pods:
            used[pod.machine] += pod.cpu
        kept = [n for n, (cpu, _) in enumerate(self.machines) if used[n] >= cpu_share * cpu]
        index = {machine: n for n, machine in enumerate(kept)}
        pods = (replace(pod, machine=index[pod.machine]) for pod in self.pods if pod.machine in index)
        return RasaCluster(tuple(self.machines[n] for n in kept), tuple(pods))


def load(path: Path | None = None) -> RasaCluster:
    """Return the cluster of the file. Raises FileNotFoundError that says where the file comes from."""
    path = path or Path(os.environ.get("RASA_M3", "rasa-m3.json"))
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing: get the data set M3 of github.com/bytedance/research-cluster-dataset, and set RASA_M3 to its path"
        )
    raw = json.loads(path.read_text())
    machines, services = raw["MachineList"], raw["ServiceList"]
    cpu_unit = _LARGEST_CPU / max(machine["TotalCPU"] for machine in machines)
    memory_unit = _LARGEST_MEMORY / max(machine["TotalMem"] for machine in machines)
    place = {name: n for n, machine in enumerate(machines) for name in machine["InitialDeployingContainers"]}
    return RasaCluster(
        tuple((math.ceil(m["TotalCPU"] * cpu_unit), math.ceil(m["TotalMem"] * memory_unit)) for m in machines),
        tuple(_pods(services, place, cpu_unit, memory_unit)),
    )


def _pods(
    services: Iterable[dict[str, object]], place: dict[str, int], cpu_unit: float, memory_unit: float
) -> Iterable[RasaPod]:
    for service in services:
        cpu = math.floor(float(str(service["RequestCPU"])) * cpu_unit)
        memory = math.floor(float(str(service["RequestMem"])) * memory_unit)
        for name in service["ContainerList"] if isinstance(service["ContainerList"], list) else ():
            if name in place:
                yield RasaPod(name.lower(), str(service["Service"]).lower(), cpu, memory, place[name])

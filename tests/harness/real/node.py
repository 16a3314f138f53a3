"""A node: the first process of its namespaces, with containerd, a kubelet and kube-proxy on default ports and paths.

The kubelet writes settings of the whole host to private files, which are mounted over those of the host. The folder of
a node keeps its disk: `/var/lib` and `/var/log`. A node that starts again on it has rebooted.
"""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import yaml

from harness import binaries
from harness.real import shared_volume, without_seccomp

_SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
DNS_ADDRESS = "10.96.0.10"
VOLUME_DRIVER = "lab/shared"
"""Driver of volumes that every node can mount, as disks of a network are."""
# Not the default socket: there the kubelet's cAdvisor would ask for the containers of all nodes, which share the cgroups of
# this machine, and wait for 3 s for each one that this containerd does not know.
_SOCKET = "/run/lab/containerd.sock"


def run(*command: str) -> None:
    """Run a command to its end. Raises CalledProcessError."""
    subprocess.run(command, check=True)


def wait_for(*command: str) -> None:
    """Repeat a command until it succeeds."""
    while subprocess.run(command, check=False, capture_output=True).returncode:
        time.sleep(0.05)


def network(index: int) -> None:
    """Set the address of the node after the lab has made its link."""
    wait_for("ip", "link", "show", "eth0")
    run("ip", "link", "set", "lo", "up")
    run("ip", "addr", "add", f"10.200.0.{10 + index}/24", "dev", "eth0")
    run("ip", "link", "set", "eth0", "up")
    run("ip", "route", "add", "default", "via", "10.200.0.1")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def mounts(folder: Path) -> None:
    """Mount private /run, /var/lib and /var/log."""
    run("mount", "-n", "-t", "tmpfs", "tmpfs", "/run")
    for name in ("lib", "log"):
        (folder / name).mkdir(exist_ok=True)
        run("mount", "-n", "--bind", str(folder / name), f"/var/{name}")
    run("mount", "-n", "--make-rshared", "/")
    for name, value in {**_SYSCTLS, "kernel/random/boot_id": str(uuid.uuid4())}.items():
        file = folder / "sys" / name.replace("/", ".")
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"{value}\n")
        run("mount", "-n", "--bind", str(file), f"/proc/sys/{name}")


def containerd(folder: Path, index: int) -> None:
    """Start containerd; import the images of the lab when the node starts for the first time."""
    plugins, programs = folder / "net.d", binaries.path("containerd").parent
    plugins.mkdir(exist_ok=True)
    ipam = {"type": "host-local", "ranges": [[{"subnet": f"10.244.{index}.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False, "ipam": ipam}
    (plugins / "10-lab.conflist").write_text(json.dumps({"cniVersion": "1.0.0", "name": "lab", "plugins": [bridge]}))
    wrapper = folder / "runc"
    wrapper.write_text(f"#!{sys.executable} -S\n{Path(without_seccomp.__file__).read_text()}")
    wrapper.chmod(0o755)
    config = folder / "containerd.toml"
    config.write_text(
        f"""version = 3
[grpc]
address = "{_SOCKET}"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "localhost/pause:1"
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{programs}"]
conf_dir = "{plugins}"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "{wrapper}"
SystemdCgroup = false
"""
    )
    path = f"{programs}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "REAL_RUNC": str(binaries.path("runc"))}
    start(folder, [str(programs / "containerd"), "-c", str(config)], environment)
    ctr = (str(programs / "ctr"), "--address", _SOCKET, "--namespace", "k8s.io")
    wait_for(*ctr, "version")
    if not (folder / "imported").exists():
        for archive in sorted((folder.parent / "images").iterdir()):
            run(*ctr, "images", "import", str(archive))
        for name, other in json.loads((folder.parent / "tags.json").read_text()).items():
            run(*ctr, "images", "tag", name, other)
        (folder / "imported").touch()


def start(folder: Path, command: list[str], environment: dict[str, str] | None = None) -> None:
    """Start a program of the node, with a file for its process ID and one for its log."""
    name = Path(command[0]).name
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    (folder / f"{name}.pid").write_text(str(process.pid))


def volume_driver(folder: Path) -> None:
    """Install a FlexVolume driver that mounts a folder of the host."""
    file = folder / "plugins" / VOLUME_DRIVER.replace("/", "~") / VOLUME_DRIVER.rsplit("/", 1)[1]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!{sys.executable} -S\n{Path(shared_volume.__file__).read_text()}")
    file.chmod(0o755)


def kubelet(folder: Path, index: int) -> None:
    """Start the kubelet."""
    volume_driver(folder)
    body = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "failSwapOn": False,
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": False,
        "enforceNodeAllocatable": [],
        "makeIPTablesUtilChains": False,
        "resolvConf": "",
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": f"unix://{_SOCKET}",
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "nodeStatusUpdateFrequency": "2s",
        "nodeLeaseDurationSeconds": 8,
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "50Mi",
            **{f"{what}.{left}": "0%" for what in ("nodefs", "imagefs") for left in ("available", "inodesFree")},
        },
    }
    config = folder / "kubelet.yaml"
    config.write_text(yaml.safe_dump(body))
    command = [str(binaries.path("kubelet")), f"--config={config}", f"--kubeconfig={folder / 'kubelet.kubeconfig'}"]
    command += [f"--hostname-override=n{index}", f"--node-ip=10.200.0.{10 + index}", "--root-dir=/var/lib/kubelet"]
    command += ["--cert-dir=/var/lib/kubelet/pki", f"--volume-plugin-dir={folder / 'plugins'}"]
    start(folder, command)


def kube_proxy(folder: Path, index: int) -> None:
    """Start kube-proxy with nftables; it leaves the settings of conntrack alone, which belong to the host."""
    body = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "hostnameOverride": f"n{index}",
        "clientConnection": {"kubeconfig": str(folder / "kube-proxy.kubeconfig")},
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
    config = folder / "kube-proxy.yaml"
    config.write_text(yaml.safe_dump(body))
    start(folder, [str(binaries.path("kube-proxy")), f"--config={config}"])


def services(folder: Path, index: int) -> None:
    """Start containerd and the kubelet, also on a node that runs already."""
    containerd(folder, index)
    kubelet(folder, index)


def boot(folder: Path, index: int) -> None:
    """Run the node until it is killed; reap orphaned processes of its containers."""
    network(index)
    mounts(folder)
    services(folder, index)
    kube_proxy(folder, index)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            signal.pause()


if __name__ == "__main__":
    {"boot": boot, "services": services}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))

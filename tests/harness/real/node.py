"""A node: the first process of its namespaces, with containerd and a kubelet on default ports and paths.

The kubelet writes settings of the whole host to private files, which are mounted over those of the host.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

from harness import binaries
from harness.real import without_seccomp

_SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
_SOCKET = "/run/containerd/containerd.sock"


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
        (folder / name).mkdir(parents=True)
        run("mount", "-n", "--bind", str(folder / name), f"/var/{name}")
    run("mount", "-n", "--make-rshared", "/")
    for name, value in _SYSCTLS.items():
        file = folder / "sys" / name.replace("/", ".")
        file.parent.mkdir(exist_ok=True)
        file.write_text(value)
        run("mount", "-n", "--bind", str(file), f"/proc/sys/{name}")


def containerd(folder: Path, index: int, images: Path) -> None:
    """Start containerd, and import the images."""
    plugins, programs = folder / "net.d", binaries.path("containerd").parent
    plugins.mkdir()
    ipam = {"type": "host-local", "ranges": [[{"subnet": f"10.244.{index}.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False, "ipam": ipam}
    (plugins / "10-lab.conflist").write_text(json.dumps({"cniVersion": "1.0.0", "name": "lab", "plugins": [bridge]}))
    wrapper = folder / "runc"
    wrapper.write_text(f"#!{sys.executable} -S\n{Path(without_seccomp.__file__).read_text()}")
    wrapper.chmod(0o755)
    config = folder / "containerd.toml"
    config.write_text(
        f"""version = 3
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
    with (folder / "containerd.log").open("wb") as log:
        command = [str(programs / "containerd"), "-c", str(config)]
        subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    wait_for(str(programs / "ctr"), "version")
    run(str(programs / "ctr"), "-n", "k8s.io", "images", "import", str(images))


def kubelet(folder: Path, index: int, kubeconfig: Path) -> None:
    """Start the kubelet as an administrator of this private cluster."""
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
        "containerRuntimeEndpoint": f"unix://{_SOCKET}",
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "nodeStatusUpdateFrequency": "2s",
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "50Mi",
            **{f"{what}.{left}": "0%" for what in ("nodefs", "imagefs") for left in ("available", "inodesFree")},
        },
    }
    config = folder / "kubelet.yaml"
    config.write_text(yaml.safe_dump(body))
    command = [str(binaries.path("kubelet")), f"--config={config}", f"--kubeconfig={kubeconfig}"]
    command += [f"--hostname-override=n{index}", f"--node-ip=10.200.0.{10 + index}", "--root-dir=/var/lib/kubelet"]
    command += ["--cert-dir=/var/lib/kubelet/pki", "--volume-plugin-dir=/var/lib/kubelet-plugins"]
    with (folder / "kubelet.log").open("wb") as log:
        subprocess.Popen(command, stdout=log, stderr=log)


def main(folder: Path, index: int, kubeconfig: Path, images: Path) -> None:
    """Run the node until it is killed; reap orphaned processes of its containers."""
    folder.mkdir()
    network(index)
    mounts(folder)
    containerd(folder, index, images)
    kubelet(folder, index, kubeconfig)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            signal.pause()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))

"""Rights, tokens and authorities that change while the operator runs."""

import subprocess
from pathlib import Path

import yaml

from harness.clients import ControlPlaneError
from harness.fault_lab import FaultLab
from harness.operators import NAMESPACE
from harness.proxy import Fault
from harness.waiting import until


def test_rights_that_are_withdrawn_are_named_and_work_goes_on_when_they_are_back(quiet: FaultLab) -> None:
    operator = quiet.operator(name="rights")
    quiet.leads(operator)
    binding = quiet.plane.get("clusterrolebinding", "rescheduler")
    with quiet.judged(operator):
        node = quiet.busiest()
        quiet.plane.kubectl("delete", "clusterrolebinding", "rescheduler")
        quiet.annotate(node)
        until(lambda: operator.probe("readyz") == 503, "the operator to say that it is not ready", seconds=240)
        assert "forbidden" in operator.log.read_text().lower()
        meta = {"name": "rescheduler", "labels": binding["metadata"].get("labels", {})}
        quiet.plane.apply(
            {key: binding[key] for key in ("apiVersion", "kind", "roleRef", "subjects")} | {"metadata": meta}
        )
        quiet.late = 240.0
        quiet.drained(node, seconds=180)
        quiet.restored(node)
        until(lambda: operator.probe("readyz") == 200, "the operator to be ready again")


def test_a_token_that_is_revoked_is_replaced_by_the_new_one_in_its_file(quiet: FaultLab) -> None:
    proxy = quiet.proxy()
    operator = quiet.operator(proxy, name="token")
    quiet.leads(operator)
    old = yaml.safe_load(operator.kubeconfig.read_text())["users"][0]["user"]["token"]
    revoked = Fault(lambda asked: asked.authorization == f"Bearer {old}", code=401)
    with quiet.judged(operator), proxy.fault(revoked):
        node = quiet.busiest()
        quiet.annotate(node)
        proxy.kubeconfig(quiet.plane.identity_kubeconfig(NAMESPACE, "rescheduler"), operator.kubeconfig)
        quiet.drained(node)
        quiet.restored(node)
    assert proxy.harmed


def test_a_new_authority_is_read_from_its_file(quiet: FaultLab, tmp_path: Path) -> None:
    proxy = quiet.proxy()
    operator = quiet.operator(proxy, name="authority")
    quiet.leads(operator)
    authority, certificate, key = make_authority(tmp_path)
    with quiet.judged(operator):
        node = quiet.busiest()
        proxy.present(certificate, key)
        proxy.disconnect()
        quiet.annotate(node)
        proxy.authority = authority
        proxy.kubeconfig(operator.kubeconfig, operator.kubeconfig)
        quiet.drained(node)
        quiet.restored(node)


def make_authority(folder: Path) -> tuple[Path, Path, Path]:
    """Return the certificate of a new authority, and a certificate for 127.0.0.1 with its key."""
    files = [folder / name for name in ("ca.crt", "server.crt", "server.key", "ca.key", "server.csr", "names")]
    authority, certificate, key, its_key, request, names = map(str, files)
    files[5].write_text("subjectAltName=IP:127.0.0.1")
    new = ("req", "-newkey", "rsa:2048", "-nodes", "-subj")
    openssl(*new, "/CN=new-authority", "-x509", "-days", "1", "-keyout", its_key, "-out", authority)
    openssl(*new, "/CN=127.0.0.1", "-keyout", key, "-out", request)
    signed = ("-CA", authority, "-CAkey", its_key, "-set_serial", "1", "-days", "1", "-extfile", names)
    openssl("x509", "-req", "-in", request, *signed, "-out", certificate)
    return files[0], files[1], files[2]


def openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ControlPlaneError(done.stderr)

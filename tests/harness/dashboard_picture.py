"""Draw the dashboard with the data of a real run: `python -m harness.dashboard_picture [--keep DATA]`.

A control plane, the operator and a real Prometheus run for some minutes of drains, failures and a storm. Then each query
of the dashboard is sent to Prometheus, and the panels are drawn in its layout. Grafana is not needed, and draws them in
its own style. Prometheus must be on the PATH, or named by the environment variable PROMETHEUS.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import requests

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from harness import ControlPlane, alerts, binaries, dashboard, workloads
from harness.observer import Observer
from harness.operators import Operator, install
from harness.processes import free_port
from harness.waiting import until

PICTURE = Path(__file__).parents[2] / "docs/guides/dashboard.png"
_SCRAPE_INTERVAL, _WINDOW = "1s", "20s"
_LONGEST_STEP = 3  # seconds; a longer one is a gap
_SPACES = ("shop", "batch")
_CELL = 0.62, 0.30  # inches of one cell of the grid
_COLORS = ("#3274d9", "#e0752d", "#37872d", "#8f3bb8", "#c4162a", "#0a9396", "#b7820a", "#6b7280")


@contextmanager
def prometheus(operator: Operator, folder: Path) -> Iterator[str]:
    """Run Prometheus with the rules of the chart; yield its address."""
    program = os.environ.get("PROMETHEUS") or shutil.which("prometheus")
    if program is None:
        raise binaries.MissingBinariesError("prometheus is missing: install it, or set PROMETHEUS")
    job = {"job_name": "rescheduler", "static_configs": [{"targets": [f"127.0.0.1:{operator.metrics_port}"]}]}
    settings = {"scrape_interval": _SCRAPE_INTERVAL, "evaluation_interval": "5s"}
    config = folder / "prometheus.yml"
    config.write_text(json.dumps({"global": settings, "rule_files": [str(alerts.RULES)], "scrape_configs": [job]}))
    address = f"127.0.0.1:{free_port()}"
    command = [program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        until(lambda: _answers(address), "Prometheus to be ready")
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait()


def _answers(address: str) -> bool:
    try:
        return requests.get(f"http://{address}/-/ready", timeout=2).ok
    except requests.ConnectionError:
        return False


def fill(plane: ControlPlane) -> list[str]:
    """Create nodes, pools and workloads; return the names of the nodes."""
    nodes = plane.add_nodes(6, labels={"pool": "shop"}, zones=("a", "b", "c"), own_kwok=True, cpu="2")
    nodes += plane.add_nodes(3, first=7, labels={"pool": "batch"}, zones=("a", "b", "c"), own_kwok=True, cpu="2")
    big = {
        "containers": [
            {"name": "app", "image": "simulated", "resources": {"requests": {"cpu": "400m", "memory": "1Gi"}}}
        ]
    }
    plane.apply(*map(workloads.namespace, _SPACES))
    plane.apply(
        workloads.policy(
            maintenance={"maxUnavailable": "50%", "maxConcurrent": 2},
            failure={
                "conditions": [{"type": "Ready", "status": ["Unknown"], "for": "3s"}],
                "recoverAfter": "5s",
                "startupGrace": "0s",
                "maxUnhealthy": "25%",
                "leaseTimeout": "10s",
            },
        ),
        *(
            workloads.pool(s, nodeSelector={"matchLabels": {"pool": s}}, namespaces=[s], mode="Enforce")
            for s in _SPACES
        ),
    )
    plane.apply(
        workloads.deployment("web", 8, "shop", annotations={"cluster/ready-after": "4s"}, **big),
        workloads.deployment(
            "api",
            18,
            "shop",
            annotations={"cluster/ready-after": "2s", "rescheduler.dev/replacement": "Never"},
        ),
        workloads.stateful_set("db", 3, "shop"),
        workloads.deployment("work", 9, "batch", annotations={"cluster/ready-after": "1s"}, **big),
        workloads.budget("web", "shop", maxUnavailable=1),
        workloads.budget("api", "shop", maxUnavailable=1),
        workloads.budget("db", "shop", maxUnavailable=0),
    )
    return nodes


def play(plane: ControlPlane, observer: Observer, nodes: list[str]) -> None:
    """Drain nodes, fail one node and then many, and let all of them come back."""

    def annotate(*words: str) -> None:
        plane.kubectl("annotate", "--overwrite", "node", *words)

    time.sleep(20)
    annotate(nodes[0], nodes[1], nodes[2], "rescheduler.dev/maintenance=kernel 6.18")
    time.sleep(100)
    plane.kubectl("delete", "pdb", "db", "-n", "shop")  # the budget that blocks the drains
    until(lambda: observer.phase(nodes[0]) == "Drained", f"{nodes[0]} to be drained", seconds=120)
    time.sleep(15)
    annotate(nodes[0], nodes[1], nodes[2], "rescheduler.dev/maintenance-")
    time.sleep(25)
    plane.pause_node(nodes[7])  # silent for a moment: a false alarm
    time.sleep(11)
    plane.resume_node(nodes[7])
    time.sleep(15)
    plane.fail_node(nodes[3])
    time.sleep(45)
    plane.recover_node(nodes[3])
    time.sleep(20)
    for node in nodes[3:7]:
        plane.fail_node(node)  # a storm
    time.sleep(40)
    for node in nodes[3:7]:
        plane.recover_node(node)
    time.sleep(30)


def record(address: str, begun: float) -> dict[str, Any]:
    """Return the answer of Prometheus to each query of the dashboard, by title and legend, and the alerts that fired."""
    span: dict[str, str | float] = {"start": begun, "end": time.time(), "step": 1}
    answers: dict[str, Any] = {"begun": begun, "panels": {}}
    for panel in (panel for row in dashboard.ROWS.values() for panel in row):
        lines = answers["panels"].setdefault(panel.title, {})
        for expression, legend in panel.queries:
            query = expression.replace("$__rate_interval", _WINDOW).replace("$job", ".*")
            answer = requests.get(f"{address}/api/v1/query_range", params=span | {"query": query}, timeout=60)
            answer.raise_for_status()
            for series in answer.json()["data"]["result"]:
                lines[_legend(legend, series["metric"])] = [
                    (at - begun, float(value)) for at, value in series["values"]
                ]
    found = requests.get(f"{address}/api/v1/query_range", params=span | {"query": "ALERTS"}, timeout=60).json()
    answers["alerts"] = sorted(
        {f"{s['metric']['alertname']} {s['metric']['alertstate']}" for s in found["data"]["result"]}
    )
    return answers


def _legend(legend: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        legend = legend.replace(f"{{{{{name}}}}}", value)
    return legend.replace("{{pod}} ", "")


def draw(answers: dict[str, Any]) -> None:
    """Draw the panels in the layout of the dashboard."""
    panels = dashboard.build()["panels"]
    rows = {p["title"]: p["gridPos"] for p in panels if p["type"] == "row"}
    places = {p["title"]: p["gridPos"] for p in panels if p["type"] != "row"}
    height = max(p["y"] + p["h"] for p in places.values())
    minutes = max(at for lines in answers["panels"].values() for points in lines.values() for at, _ in points) / 60
    width = 24 * _CELL[0]
    figure = plt.figure(figsize=(width, height * _CELL[1]), facecolor="#f4f5f5")
    for title, row in dashboard.ROWS.items():
        top = 1 - rows[title]["y"] / height
        figure.text(0.006, top - 0.6 / height, title, weight="bold", size=11, va="center")
        for panel in row:
            place = places[panel.title]
            left, bottom = place["x"] / 24, 1 - (place["y"] + place["h"]) / height
            box = (left + 0.003, bottom + 0.15 / height, place["w"] / 24 - 0.006, (place["h"] - 0.3) / height)
            figure.patches.append(
                plt.Rectangle(box[:2], *box[2:], color="white", transform=figure.transFigure, zorder=-1)
            )
            lines = answers["panels"][panel.title]
            figure.text(left + 0.008, box[1] + box[3] - 0.55 / height, panel.title, size=8, va="center")
            if panel.kind == "stat":
                _draw_stat(figure, panel, lines, box)
            else:
                inner = (box[0] + 0.035, box[1] + 1.05 / height, box[2] - 0.045, box[3] - 2.2 / height)
                _draw_lines(figure.add_axes(inner), panel, lines, minutes)
    figure.savefig(PICTURE, dpi=90)
    plt.close(figure)


def _draw_stat(figure: Any, panel: dashboard.Panel, lines: dict[str, list[tuple[float, float]]], box: Any) -> None:
    """Draw the largest value of the run, or for a stat that must be high the last one."""
    values = [value for points in lines.values() for _, value in points]
    value = (values[-1] if panel.bad_below else max(values)) if values else 0.0
    bad = (panel.bad_above is not None and value >= panel.bad_above) or (panel.bad_below or float("-inf")) > value
    text = f"{value:.0f}{' s' if panel.unit == 's' else ''}"
    color = "#c4162a" if bad else "#37872d"
    figure.text(box[0] + box[2] / 2, box[1] + box[3] * 0.38, text, size=20, color=color, ha="center", va="center")


def _draw_lines(
    axes: Axes, panel: dashboard.Panel, lines: dict[str, list[tuple[float, float]]], minutes: float
) -> None:
    scale, suffix = {"bytes": (2**20, " MiB"), "percentunit": (0.01, " %"), "s": (1, " s")}.get(panel.unit, (1, ""))
    shown = {label: found for label, points in sorted(lines.items()) if (found := _with_gaps(points))}
    for color, (label, points) in zip(_COLORS, shown.items(), strict=False):
        at, values = zip(*points, strict=True)
        axes.plot([x / 60 for x in at], [y / scale for y in values], label=label, color=color, linewidth=1.1)
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, minutes)
    axes.grid(visible=True, alpha=0.25, linewidth=0.5)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(labelsize=6, length=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}{suffix}")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} min")
    if shown:
        style: dict[str, Any] = {"frameon": False, "fontsize": 6, "ncols": 4, "handlelength": 1, "columnspacing": 1}
        axes.legend(loc="upper left", bbox_to_anchor=(-0.08, -0.09), **style)
    else:
        axes.text(0.5, 0.5, "nothing in this run", transform=axes.transAxes, size=7, color="#9aa0a6", ha="center")
        axes.set_yticks([])


def _with_gaps(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points without NaN, and with one NaN in each gap, so that no line is drawn over it."""
    finite = [(at, value) for at, value in points if math.isfinite(value)]
    found: list[tuple[float, float]] = []
    for at, value in finite:
        if found and at - found[-1][0] > _LONGEST_STEP:
            found.append((at, math.nan))
        found.append((at, value))
    return found


def main(arguments: list[str]) -> int:
    """Run, record and draw. Return the exit code. With `--keep FILE`, keep the data, or draw what is there."""
    kept = Path(arguments[1]) if arguments[:1] == ["--keep"] else None
    if kept and kept.exists():
        draw(json.loads(kept.read_text()))
        return 0
    with ControlPlane.start() as plane:
        nodes, identity = fill_after_install(plane)
        with (
            Operator(identity, plane.workdir / "operator.log") as operator,
            prometheus(operator, plane.workdir) as address,
        ):
            begun = time.time()
            play(plane, Observer(plane.kubeconfig), nodes)
            answers = record(address, begun)
    if kept:
        kept.write_text(json.dumps(answers))
    sys.stdout.write("\n".join(answers["alerts"]) + "\n")
    draw(answers)
    return 0


def fill_after_install(plane: ControlPlane) -> tuple[list[str], Path]:
    """Install the operator's objects, and fill the cluster; return the nodes and the operator's kubeconfig."""
    identity = install(plane)
    return fill(plane), identity


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Write the Grafana dashboard of the chart: `python -m harness.dashboard [--check]`.

A dashboard in JSON is long, and most of it is layout. The panels are below, one line each; this module adds the layout.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[2] / "manifests/chart/dashboards/rescheduler.json"
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
_COLUMNS = 24
_JOB = 'job=~"$job"'
"""Metrics with stock names exist for other controllers too; `$job` is the job of the operator."""


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel of the dashboard.

    Attributes:
        queries: PromQL and legend of each query.
        kind: `stat`, `timeseries` or `bargauge`.
        bad_above, bad_below: value from which a stat is red.
    """

    title: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 8
    description: str = ""
    bad_above: float | None = None
    bad_below: float | None = None


def _quantiles(metric: str, by: str = "") -> tuple[tuple[str, str], ...]:
    labels, legend = (f"le, {by}", f"{{{{{by}}}}} ") if by else ("le", "")
    return tuple(
        (
            f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket[$__rate_interval])))",
            f"{legend}p{round(q * 100)}",
        )
        for q in (0.5, 0.9)
    )


def _p99(metric: str, by: str) -> tuple[tuple[str, str], ...]:
    """Return the query of a metric with a stock name."""
    rate = f"rate({metric}_bucket{{{_JOB}}}[$__rate_interval])"
    return ((f"histogram_quantile(0.99, sum by (le, {by}) ({rate}))", f"{{{{{by}}}}}"),)


def _mean(metric: str) -> tuple[tuple[str, str], ...]:
    total, count = (f"sum(rate({metric}_{end}[$__rate_interval]))" for end in ("sum", "count"))
    return ((f"{total} / {count}", "mean"),)


ROWS: dict[str, tuple[Panel, ...]] = {
    "Now": (
        Panel(
            "Leader",
            (('max(leader_election_master_status{name="rescheduler"})', ""),),
            "stat",
            width=4,
            bad_below=1,
            description="1 if a replica leads.",
        ),
        Panel("Drains", (("sum(max by (phase) (rescheduler_drains))", ""),), "stat", width=4),
        Panel(
            "Blocked drains",
            (('max(rescheduler_drains{phase="Blocked"})', ""),),
            "stat",
            width=4,
            bad_above=1,
        ),
        Panel(
            "Oldest blocker",
            (("max(rescheduler_drain_blocked_seconds)", ""),),
            "stat",
            "s",
            width=4,
            bad_above=1800,
        ),
        Panel(
            "Storm brake",
            (("max(rescheduler_storm_brake)", ""),),
            "stat",
            width=4,
            bad_above=1,
            description="1 while many nodes fail at once, and no further drain starts.",
        ),
        Panel(
            "Pools that lack room for a node loss",
            (("count(min by (pool) (rescheduler_pool_survives_node_loss) == 0) or vector(0)", ""),),
            "stat",
            width=4,
            bad_above=1,
        ),
    ),
    "Drains": (
        Panel("Drains by phase", (("max by (phase) (rescheduler_drains)", "{{phase}}"),)),
        Panel("Why drains wait", (("max by (reason) (rescheduler_drains_waiting) > 0", "{{reason}}"),)),
        Panel("Pods that block, by class", (("max by (class) (rescheduler_blockers) > 0", "{{class}}"),)),
        Panel(
            "Pods that leave",
            (
                ("sum(rate(rescheduler_pods_moved_total[$__rate_interval]))", "moved"),
                ('sum(rate(rescheduler_evictions_total{outcome="accepted"}[$__rate_interval]))', "evictions accepted"),
                ('sum(rate(rescheduler_evictions_total{outcome="refused"}[$__rate_interval]))', "evictions refused"),
            ),
            unit="ops",
        ),
        Panel("Time to a Ready replacement", _quantiles("rescheduler_replacement_seconds"), unit="s"),
        Panel(
            "Slot latency",
            _quantiles("rescheduler_slot_latency_seconds"),
            unit="s",
            description="From a budget that allows an eviction again to the next accepted eviction.",
        ),
        Panel(
            "Moves per pod",
            _mean("rescheduler_moves_per_pod"),
            description="1 is good: no pod that replaced a moved pod moves again.",
        ),
        Panel(
            "Replacements that fail, by cause",
            (("sum by (cause) (increase(rescheduler_replacement_failures_total[$__rate_interval])) > 0", "{{cause}}"),),
        ),
        Panel(
            "Not replaced first, by reason",
            (("sum by (reason) (increase(rescheduler_not_replaced_first_total[$__rate_interval])) > 0", "{{reason}}"),),
        ),
    ),
    "Failures": (
        Panel("Stages of a failover", _quantiles("rescheduler_failover_seconds", "stage"), unit="s", width=12),
        Panel(
            "Brake, blackout and false alarms",
            (
                ("max(rescheduler_storm_brake)", "storm brake"),
                ("max(rescheduler_view_blackout)", "blackout"),
                ("sum(increase(rescheduler_false_alarms_total[$__rate_interval]))", "false alarms"),
            ),
            width=12,
        ),
    ),
    "Pools": (
        Panel(
            "Fill",
            (("max by (pool, resource) (rescheduler_pool_fill_ratio)", "{{pool}} {{resource}}"),),
            unit="percentunit",
        ),
        Panel(
            "Pods outside their pool, or without a node",
            (
                ("max by (pool) (rescheduler_pool_pods_outside)", "{{pool}} outside"),
                ("max by (pool) (rescheduler_pool_pods_unschedulable)", "{{pool}} unschedulable"),
            ),
        ),
        Panel(
            "Unevenness of the nodes",
            (
                (
                    "max by (pool, policy, resource) (rescheduler_node_load_deviation)",
                    "{{policy}} {{pool}} {{resource}}",
                ),
            ),
            unit="percentunit",
            description="Standard deviation of the requested share of the nodes, for policies with rebalancing.",
        ),
    ),
    "Operator": (
        Panel(
            "Requests to the API server, by answer",
            ((f"sum by (code) (rate(rest_client_requests_total{{{_JOB}}}[$__rate_interval]))", "{{code}}"),),
            unit="reqps",
        ),
        Panel(
            "API latency p99",
            _p99("rest_client_request_duration_seconds", "verb"),
            unit="s",
        ),
        Panel(
            "Age of the view",
            (
                ("max by (resource) (rescheduler_watch_age_seconds)", "{{resource}}"),
                ("max(rescheduler_list_age_seconds)", "full list"),
            ),
            unit="s",
        ),
        Panel(
            "Reconciliation p99",
            _p99("controller_runtime_reconcile_time_seconds", "controller"),
            unit="s",
        ),
        Panel(
            "Memory",
            ((f"max by (pod, instance) (process_resident_memory_bytes{{{_JOB}}})", "{{pod}} {{instance}}"),),
            unit="bytes",
        ),
        Panel(
            "Restarted tasks and troubles",
            (
                ("sum by (task) (increase(rescheduler_task_failures_total[$__rate_interval])) > 0", "task {{task}}"),
                ("sum by (event) (increase(rescheduler_troubles_total[$__rate_interval])) > 0", "{{event}}"),
            ),
        ),
    ),
}
"""The panels of each row."""


def build() -> dict[str, Any]:
    """Return the dashboard in the form of Grafana."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        panels.append(
            {
                "type": "row",
                "title": title,
                "id": len(panels) + 1,
                "collapsed": False,
                "panels": [],
                "gridPos": {"h": 1, "w": _COLUMNS, "x": 0, "y": top},
            }
        )
        top, left = top + 1, 0
        height = 4 if row[0].kind == "stat" else 7
        for panel in row:
            if left + panel.width > _COLUMNS:
                top, left = top + height, 0
            panels.append(_panel(panel, len(panels) + 1, {"h": height, "w": panel.width, "x": left, "y": top}))
            left += panel.width
        top += height
    return {
        "title": "Rescheduler",
        "uid": "rescheduler",
        "tags": ["rescheduler", "kubernetes"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "links": [{"type": "link", "title": "Documentation", "url": "https://rescheduler.dev", "targetBlank": True}],
        "templating": {"list": [_datasource_variable(), _job_variable()]},
        "panels": panels,
    }


def _datasource_variable() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "current": {}}


def _job_variable() -> dict[str, Any]:
    query = "label_values(rescheduler_build_info, job)"
    return {
        "name": "job",
        "type": "query",
        "datasource": _DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": "A"},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit}
    options: dict[str, Any] = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
    if panel.kind == "stat":
        defaults["thresholds"] = {"mode": "absolute", "steps": _steps(panel)}
        options = {"colorMode": "value", "graphMode": "area", "reduceOptions": {"calcs": ["lastNotNull"]}}
    return {
        "type": panel.kind,
        "title": panel.title,
        "id": number,
        "description": panel.description,
        "datasource": _DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _DATASOURCE,
                "expr": expr,
                "legendFormat": legend or "__auto",
            }
            for index, (expr, legend) in enumerate(panel.queries)
        ],
    }


def _steps(panel: Panel) -> list[dict[str, Any]]:
    if panel.bad_below is not None:
        return [{"color": "red", "value": None}, {"color": "green", "value": panel.bad_below}]
    above = [] if panel.bad_above is None else [{"color": "red", "value": panel.bad_above}]
    return [{"color": "green", "value": None}, *above]


def main(arguments: list[str]) -> int:
    """Write the dashboard, or check it. Return the exit code."""
    text = json.dumps(build(), indent=1) + "\n"
    if "--check" not in arguments:
        TARGET.write_text(text)
    elif TARGET.read_text() != text:
        sys.stderr.write(f"{TARGET} is not current: run `make manifests`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

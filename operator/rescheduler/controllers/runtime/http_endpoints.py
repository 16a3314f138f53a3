"""`/healthz`, `/readyz` and `/metrics` over HTTP."""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest


def _probe(find_problem: Callable[[], str | None]) -> Callable[[web.Request], "object"]:
    """Return the handler of a probe: 503 with the problem, or 200 if there is none."""

    async def handle(_: web.Request) -> web.Response:
        problem = find_problem()
        return web.Response(text=f"{problem or 'ok'}\n", status=503 if problem else 200)

    return handle


async def serve(
    *,
    healthy: Callable[[], str | None],
    ready: Callable[[], str | None],
    registry: CollectorRegistry,
    health_port: int,
    metrics_port: int,
) -> list[web.AppRunner]:
    """Start the endpoints; return the runners, which the caller cleans up. Raises OSError if a port is in use."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    probe_app, metrics_app = web.Application(), web.Application()
    probe_app.router.add_get("/healthz", _probe(healthy))  # type: ignore[arg-type]
    probe_app.router.add_get("/readyz", _probe(ready))  # type: ignore[arg-type]
    metrics_app.router.add_get("/metrics", metrics)
    runners = []
    for app, port in ((probe_app, health_port), (metrics_app, metrics_port)):
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "0.0.0.0", port).start()  # noqa: S104 - the kubelet and Prometheus connect from outside of the pod
    return runners

"""`/healthz`, `/readyz` and `/metrics` over HTTP."""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest


def _probe(find_problem: Callable[[], str | None]) -> Callable[[web.Request], "object"]:
    """A probe: 200 where `answer` has nothing to complain of, else 503 with the complaint."""

    async def handle(_: web.Request) -> web.Response:
        complaint = find_problem()
        return web.Response(text=f"{complaint or 'ok'}\n", status=503 if complaint else 200)

    return handle


async def serve(
    *,
    healthy: Callable[[], str | None],
    ready: Callable[[], str | None],
    registry: CollectorRegistry,
    health_port: int,
    metrics_port: int,
) -> list[web.AppRunner]:
    """Start serving; the runners are to be cleaned up at the end. Raises OSError where a port is taken."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    probes, numbers = web.Application(), web.Application()
    probes.router.add_get("/healthz", _probe(healthy))  # type: ignore[arg-type]
    probes.router.add_get("/readyz", _probe(ready))  # type: ignore[arg-type]
    numbers.router.add_get("/metrics", metrics)
    runners = []
    for app, port in ((probes, health_port), (numbers, metrics_port)):
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "0.0.0.0", port).start()  # noqa: S104 - the kubelet and Prometheus come from outside
    return runners

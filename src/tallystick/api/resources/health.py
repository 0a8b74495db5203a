"""Is it alive, is it ready, what does it count. Without a key: these say nothing about any merchant."""

from __future__ import annotations

import msgspec
from litestar import Response, get
from litestar.enums import MediaType
from litestar.openapi.datastructures import ResponseSpec

from tallystick.api.metrics import show_pool
from tallystick.api.request import ApiRequest
from tallystick.observability import metrics_page
from tallystick.services import networks
from tallystick.services.failures import is_outage
from tallystick.services.objects import NetworkObject

METRICS_MEDIA_TYPE = "text/plain; version=0.0.4"


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """`status` is ok, ready or waiting; `reasons` say for what is waited."""

    status: str
    reasons: list[str] = []


@get("/healthz", tags=["Operation"], operation_id="healthz")
async def healthz() -> Health:
    """Whether the process answers. Nothing else is asked: a database that is away is no reason to restart us."""
    return Health(status="ok")


@get(
    "/readyz",
    tags=["Operation"],
    operation_id="readyz",
    responses={
        503: ResponseSpec(Health, generate_examples=False, description="Not ready; `reasons` say why.")
    },
)
async def readyz(request: ApiRequest) -> Response[Health]:
    """200 once the database is ready and every network that answers, as the right chain, is followed."""
    try:
        async with request.ctx.database.connection() as connection:
            reasons = waiting_for(
                await networks.list_networks(connection, request.ctx), len(request.ctx.networks)
            )
    except Exception as error:  # an outage is an answer here; everything else is passed on
        if not is_outage(error):
            raise
        reasons = ["The database cannot be used at the moment."]
    health = Health(status="waiting" if reasons else "ready", reasons=reasons)
    return Response(health, status_code=503 if reasons else 200, media_type=MediaType.JSON)


def waiting_for(found: list[NetworkObject], configured: int) -> list[str]:
    """What keeps the server from being ready.

    A network that was asked and did not answer, or is another chain, keeps nobody waiting: it is shown with its
    problem. One that nobody has asked yet (no problem, nothing known), or that answered and has no cursor, does.
    """
    reasons = [
        f"The network {network.name} has no first block yet."
        for network in found
        if network.height is None
        and network.status != "misconfigured"
        and (network.head is not None or network.problem is None)
    ]
    if len(found) < configured:
        reasons.append("The networks are not set up in the database yet.")
    return reasons


@get("/metrics", tags=["Operation"], operation_id="metrics", media_type=MediaType.TEXT)
async def metrics(request: ApiRequest) -> Response[bytes]:
    """Everything this process counts, in Prometheus's text format. Keep it from the public by your proxy."""
    show_pool(*request.ctx.database.usage())
    return Response(metrics_page(), media_type=METRICS_MEDIA_TYPE)


HANDLERS = (healthz, readyz, metrics)

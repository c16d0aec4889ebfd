"""LiteLLM's Python proxy with its database features on, where they can be had.

Its database client (Prisma) needs an engine program that is offered as a download from its vendor only, not by
a package index. Who has one sets PRISMA_QUERY_ENGINE_BINARY to it and BENCH_LITELLM_DATABASE_URL to an empty
PostgreSQL database; otherwise the row says that it was not measured.
"""

import os
from dataclasses import replace

from bench.comparators import litellm
from bench.launch import Launch, NotRunning, Site

DOES = "as LiteLLM, with virtual keys and spend rows in PostgreSQL"


def launch(site: Site) -> Launch:
    """LiteLLM with DATABASE_URL; NotRunning when engine or database is missing."""
    engine = os.environ.get("PRISMA_QUERY_ENGINE_BINARY", "")
    database = os.environ.get("BENCH_LITELLM_DATABASE_URL", "")
    if not engine or not database:
        raise NotRunning(
            "not measured: its database client needs an engine program that no package index offers"
            " (the vendor's download only)"
        )
    plain = litellm.launch(site)
    extra = {"DATABASE_URL": database, "PRISMA_QUERY_ENGINE_BINARY": engine}
    return replace(plain, environment={**plain.environment, **extra})

"""What the composition promises to the parts that it puts together."""

import io
import json
import re
from pathlib import Path

from dragonfly.api.description import PATHS
from dragonfly.app.build import GATEWAY_EVENTS, build_readers, reporter
from dragonfly.catalog.catalog import Catalog
from dragonfly.core.clock import SystemClock
from dragonfly.infra.database import DatabaseThreads, open_engine
from dragonfly.infra.logging import EventLog

GATEWAY = Path(__file__).resolve().parents[2] / "src/dragonfly/gateway"


def test_everything_that_the_data_plane_reports_is_a_declared_event_with_its_fields() -> None:
    calls = {
        name: set(re.findall(r"(\w+)=", arguments))
        for path in GATEWAY.rglob("*.py")
        for name, arguments in re.findall(r'\.report\(\s*"(\w+)"(.*?)\)\n', path.read_text(), re.DOTALL)
    }
    assert calls == {event.name: set(event.fields) for event in GATEWAY_EVENTS.values()}


def test_every_path_that_is_served_is_described_and_the_other_way_round(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'unused.db'}")
    served = set(build_readers(Catalog({}), engine, DatabaseThreads(), SystemClock())) | {"/v1/chat/completions"}
    served.remove("/v1/models/{model}")  # the same page as the next, for SDKs that escape the slash
    assert served == set(PATHS)
    engine.dispose()


def test_names_in_a_report_are_cleaned_and_not_lost() -> None:
    stream = io.BytesIO()
    report = reporter(EventLog(stream, SystemClock(), strict=True))
    report("channel_failed", channel="local/my model@ollama", kind="reset", status=0)
    line = json.loads(stream.getvalue())
    assert (line["channel"], line["kind"], line["status"]) == ("_local/my_model@ollama", "reset", 0)

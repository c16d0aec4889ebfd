"""Envoy as a plain reverse proxy with one worker thread."""

from bench.launch import Launch, Site, installed_folder

DOES = "reverse proxy only: no keys, no limits, no metering; 1 worker, no access log"

_MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"

_CONFIGURATION = """\
static_resources:
  listeners:
  - name: gate
    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": {manager}
          stat_prefix: gate
          stream_idle_timeout: 0s
          request_timeout: 0s
          generate_request_id: false
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{prefix: "/"}}
                route: {{cluster: mock, timeout: 0s}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
              dynamic_stats: false
              suppress_envoy_headers: true
  clusters:
  - name: mock
    type: STATIC
    connect_timeout: 5s
    circuit_breakers:
      thresholds: [{{max_connections: 30000, max_pending_requests: 30000, max_requests: 30000}}]
    load_assignment:
      cluster_name: mock
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {mock_port}}}}}}}
"""


def launch(site: Site) -> Launch:
    """Write the configuration and say how to start."""
    text = _CONFIGURATION.format(mock_port=site.mock_port, port=site.port, manager=_MANAGER)
    (site.folder / "envoy.yaml").write_text(text)
    program = str(installed_folder(site, "envoy") / "_bin" / "envoy")
    flags = ("-c", "envoy.yaml", "--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id")
    return Launch((program, *flags), port=site.port, configuration={"envoy.yaml": text})

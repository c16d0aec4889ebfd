"""LiteLLM's Python proxy, one worker, without its database."""

from bench.launch import Launch, Site
from bench.modes import MODELS

DOES = "one master key, parses and rebuilds, computes costs; database features off: no customer keys, no spend rows"
_KEY = "sk-bench-5f0c2a9e7d3b41868a"

_MODEL = """\
- model_name: {name}
  litellm_params:
    model: openai/{name}
    api_base: http://127.0.0.1:{mock_port}/v1
    api_key: sk-bench
"""


def configuration(site: Site) -> str:
    """The text of its configuration file."""
    models = "".join(_MODEL.format(name=name, mock_port=site.mock_port) for name in MODELS)
    return f"model_list:\n{models}litellm_settings:\n  telemetry: false\n  num_retries: 0\n"


def launch(site: Site) -> Launch:
    """Write the configuration and say how to start."""
    text = configuration(site)
    (site.folder / "litellm.yaml").write_text(text)
    flags = ("--config", "litellm.yaml", "--host", "127.0.0.1", "--port", str(site.port), "--num_workers", "1")
    return Launch(
        (str(site.programs / "bin" / "litellm"), *flags),
        {"LITELLM_MASTER_KEY": _KEY, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"},
        port=site.port,
        headers=(("authorization", f"Bearer {_KEY}"),),
        ready_timeout_s=90.0,
        configuration={"litellm.yaml": text, "flags": " ".join(flags[2:])},
    )

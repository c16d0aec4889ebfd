# Runs `dragonfly serve` as an unprivileged user; data in /data, settings from the environment.
FROM python:3.12-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN python -m venv /opt/dragonfly && /opt/dragonfly/bin/pip install --no-cache-dir .

FROM python:3.12-slim
RUN useradd --system --uid 10001 --home-dir /data --create-home dragonfly
COPY --from=build /opt/dragonfly /opt/dragonfly
USER dragonfly
WORKDIR /data
VOLUME /data
EXPOSE 8080
ENV PATH=/opt/dragonfly/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    DRAGONFLY_DATA_DIR=/data \
    DRAGONFLY_SERVER__HOST=0.0.0.0
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD \
    ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/readyz', timeout=2)"]
STOPSIGNAL SIGTERM
CMD ["dragonfly", "serve"]

# syntax=docker/dockerfile:1
# One image for every container and pod: code server, webserver, daemon, and each run. It holds no address and no secret.
#   docker build --tag taxi_assets:local .
# The exact version of Python. A digest instead (FROM python:…@sha256:…) also pins the packages of the operating system.
ARG PYTHON=python:3.13.12-slim-trixie

# --- build stage: keeps files of pip and uv out of the image -----------------------------------------------------------
FROM ${PYTHON} AS build
COPY requirements/install.lock requirements/docker.lock /build/
RUN python -m venv /build/tools \
 && /build/tools/bin/python -m pip install --quiet --disable-pip-version-check --no-cache-dir --require-hashes --no-deps \
      --requirement /build/install.lock \
 && python -m venv --without-pip /opt/venv \
 && VIRTUAL_ENV=/opt/venv /build/tools/bin/uv pip install --quiet --no-cache --link-mode copy --require-hashes --no-deps \
      --only-binary :all: --requirement /build/docker.lock \
 && find /opt/venv/lib -type d \( -path '*-packages/*/tests' -o -path '*/pyarrow/include' \
      -o -path '*/googleapiclient/discovery_cache/documents' \) -prune -exec rm -r {} +
COPY taxi_assets /app/taxi_assets
# `make doctor` reads the required versions from it.
COPY pyproject.toml /app/pyproject.toml
# Byte code that Python uses without checking the source. A container then starts in half the time. It cannot write byte code.
RUN /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib /app

# --- the image --------------------------------------------------------------------------------------------------------
FROM ${PYTHON}
# DAGSTER_HOME is the path that Dagster's Helm chart expects. Runs create their lock files in it.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin taxi \
 && install --directory --owner taxi --group taxi /data /logs /opt/dagster/dagster_home
LABEL org.opencontainers.image.title="taxi_assets" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
COPY --chmod=555 deploy/docker/entrypoint.sh /usr/local/bin/entrypoint
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DAGSTER_HOME=/opt/dagster/dagster_home \
    DAGSTER_DISABLE_TELEMETRY=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    TAXI_LAKE=/data/lake \
    TAXI_WAREHOUSE=duckdb:////data/warehouse.duckdb
WORKDIR /app
USER 10001:10001
EXPOSE 4000
# For the code server. Compose sets other health checks for webserver, daemon and runs.
HEALTHCHECK --interval=30s --timeout=20s --start-period=60s --retries=3 \
  CMD ["dagster", "api", "grpc-health-check", "--port", "4000"]
ENTRYPOINT ["entrypoint"]
# Listens on all interfaces of the container. The image publishes no port on the machine.
CMD ["dagster", "api", "grpc", "--host", "0.0.0.0", "--port", "4000", "--module-name", "taxi_assets.definitions"]

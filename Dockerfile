# syntax=docker/dockerfile:1
# One image for every container and pod: code server, webserver, daemon, and each run. It holds no address and no secret.
#   docker build --tag taxi_assets:local .
# Python's exact version; a digest in its place (FROM python:…@sha256:…) pins the operating system's packages, too.
ARG PYTHON=python:3.13.12-slim-trixie

# --- what pip and uv leave behind stays in this stage -----------------------------------------------------------------
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
# Which versions there must be: the doctor looks.
COPY pyproject.toml /app/pyproject.toml
# Byte code that is taken without a look at the source: a container starts in half the time, and cannot write its own.
RUN /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib /app

# --- the image --------------------------------------------------------------------------------------------------------
FROM ${PYTHON}
# DAGSTER_HOME is where Dagster's Helm chart expects it. A run notes there that it is being worked on.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin taxi \
 && install --directory --owner taxi --group taxi /data /logs /opt/dagster/dagster_home
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
# The code server's; compose gives webserver, daemon and runs their own.
HEALTHCHECK --interval=30s --timeout=20s --start-period=60s --retries=3 \
  CMD ["dagster", "api", "grpc-health-check", "--port", "4000"]
ENTRYPOINT ["entrypoint"]
# All interfaces of the container, none of the machine: nothing is published here.
CMD ["dagster", "api", "grpc", "--host", "0.0.0.0", "--port", "4000", "--module-name", "taxi_assets.definitions"]

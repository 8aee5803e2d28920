# syntax=docker/dockerfile:1
FROM python:3.12-slim-bookworm AS build
COPY --from=ghcr.io/astral-sh/uv:0.13.9 /uv /usr/local/bin/uv
WORKDIR /build
ENV UV_PROJECT_ENVIRONMENT=/opt/recommender \
    UV_PYTHON_DOWNLOADS=never \
    UV_LINK_MODE=copy \
    UV_COMPILE_BYTECODE=1
# Bytecode is compiled here because the root filesystem of a running container is read-only.
# Of the extras, jobs need `prepare` for Parquet files; `msk` and `traces` are for settings that name
# them. The embedded servers stay out of the image.
# Dependencies change less often than the code: their layer comes first.
COPY pyproject.toml uv.lock ./
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --frozen --no-dev --extra prepare --extra msk --extra traces --extra oidc --no-install-project
COPY README.md LICENSE ./
COPY api api
COPY cli cli
COPY models models
COPY ops ops
COPY streams streams
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --frozen --no-dev --extra prepare --extra msk --extra traces --extra oidc --no-editable
# Inner loops become machine code for this machine's processor here, not at every start. Elsewhere
# than the root, so that what is imported is the installed package.
RUN cd / && "$UV_PROJECT_ENVIRONMENT/bin/python" -c "from models.code_cache import compile_once; compile_once(print)"

FROM python:3.12-slim-bookworm
ARG VERSION=""
ARG REVISION=""
ARG SOURCE=""
LABEL org.opencontainers.image.title="streaming-recommender" \
    org.opencontainers.image.description="A recommender that learns from every event as it happens." \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION" \
    org.opencontainers.image.source="$SOURCE"
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin recommender
COPY --from=build /opt/recommender /opt/recommender
# One thread for linear algebra: the arrays are small, and a thread a core would meet `pids` limits.
ENV PATH=/opt/recommender/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    OPENBLAS_NUM_THREADS=1 \
    RECOMMENDER_HOST=0.0.0.0 \
    RECOMMENDER_PORT=8080
# Listening on every address, the API asks for keys: without any it does not start.
USER 10001:10001
# The only folder that stays writable under a read-only root.
WORKDIR /tmp
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import os, ssl, urllib.request; tls = 's' if os.environ.get('RECOMMENDER_TLS_CERTIFICATE_FILE') else ''; urllib.request.urlopen(f\"http{tls}://127.0.0.1:{os.environ['RECOMMENDER_PORT']}/readyz\", timeout=3, context=ssl._create_unverified_context() if tls else None)"]
ENTRYPOINT ["recommender"]
CMD ["api"]

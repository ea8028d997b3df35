# The image of every step: the command line, the pipeline's components, Ray's nodes and MLflow's server.
#
#   make image                  CUDA: torch from the package index, with CUDA's libraries
#   make image DEVICE=cpu       CPU: a build of torch without CUDA
#
# Only the driver comes from the host (NVIDIA's container toolkit).

FROM python:3.11-slim-bookworm AS build

# DEVICE: cuda or cpu. TORCH_INDEX: a package index for torch; empty: the default. PACKAGES: further packages, such as
# tensorrt-cu13, whose libraries are not on the package index and cannot be locked with the rest.
ARG DEVICE=cuda
ARG TORCH_INDEX=""
ARG PACKAGES=""
ARG UV_VERSION=0.13.9

ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    VIRTUAL_ENV=/opt/venv

RUN pip install --no-cache-dir "uv==${UV_VERSION}" && uv venv "${VIRTUAL_ENV}"
WORKDIR /src

# Dependencies first: a change of the code keeps this layer cached.
COPY pyproject.toml requirements.lock README.md LICENSE ./
# hadolint ignore=SC2086
RUN case "${DEVICE}" in \
      cuda) torch="" ;; \
      cpu) torch="--torch-backend=cpu" ;; \
      *) echo "DEVICE=${DEVICE}: expected cuda or cpu" >&2; exit 2 ;; \
    esac \
 && if [ -n "${TORCH_INDEX}" ]; then torch="--extra-index-url=${TORCH_INDEX} --index-strategy=unsafe-best-match"; fi \
 && uv pip install ${torch} --constraints requirements.lock --requirements pyproject.toml \
      --extra train --extra export --extra openvino --extra pipelines --extra cluster ${PACKAGES}

COPY yolo_core yolo_core
COPY components components
COPY pipelines pipelines
RUN uv pip install --no-deps .


FROM python:3.11-slim-bookworm

# System packages take the versions of the base image's release.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends git tini \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --user-group --create-home app \
 && install --directory --owner=app --group=app /work

COPY --from=build /opt/venv /opt/venv

# NVIDIA_*: parts of the host's driver that the container sees. The last seven disable usage reports.
ENV PATH=/opt/venv/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    DO_NOT_TRACK=true \
    DVC_NO_ANALYTICS=true \
    MLFLOW_DISABLE_TELEMETRY=true \
    ORT_DISABLE_TELEMETRY=1 \
    WANDB_ERROR_REPORTING=false \
    RAY_USAGE_STATS_ENABLED=0 \
    RAY_USAGE_STATS_REPORT_URL=http://127.0.0.1:9

ARG VERSION=0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="scaled-yolov4" \
      org.opencontainers.image.description="Train, evaluate, export and promote Scaled-YOLOv4 and YOLOv7 detectors" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

USER 10001:10001
WORKDIR /work
COPY --chown=10001:10001 params.yaml ./
COPY --chown=10001:10001 params params

# Kubernetes uses its own probes; elsewhere this detects a container whose program cannot start.
HEALTHCHECK --interval=5m --timeout=20s --start-period=10s CMD ["scaled-yolov4", "--help"]

ENTRYPOINT ["tini", "--"]
CMD ["scaled-yolov4", "--help"]

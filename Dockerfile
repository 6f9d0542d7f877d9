# Lantern in a container:
#   docker build --target onnx -t lantern:0.1.0-onnx .     for ONNX models, without torch
#   docker build -t lantern:0.1.0 .                        with torch for the CPU
#   docker build --build-arg TORCH=cuda -t lantern:0.1.0-cuda .
# PyTorch's builds for the CPU have an index of their own: pass its address as
# --build-arg PIP_EXTRA_INDEX_URL=... If pip needs more to reach your packages, pass its configuration
# as --secret id=pip,src=pip.conf: it stays out of the image.
#
#   mkdir keys && chown 10001:10001 keys
#   docker run --rm --volume $PWD/keys:/lantern/keys lantern:0.1.0 lantern key create shop
#   docker run --rm --publish 127.0.0.1:8000:8000 --stop-timeout 70 --read-only --tmpfs /tmp \
#       --volume $PWD/models:/lantern/models:ro --volume $PWD/keys:/lantern/keys:ro lantern:0.1.0
# It runs `lantern serve` in /lantern, which has the models and the settings of the checkout where none
# are mounted. It listens on all of the container's interfaces, so a key is required: without a file of
# keys every prediction is answered 401, and only /health is open. If something in front of it
# controls access, turn that off: --env LANTERN_ACCESS__AUTH=none. docs/deployment.md has the rest.

FROM python:3.11-slim AS installer
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PIP_REQUIRE_HASHES=1
WORKDIR /build

# The libraries of both images. Every file has its hash in a lock. Only flasgger is built from
# source, with locked tools.
FROM installer AS onnx-libraries
COPY locks/build.txt locks/onnx.txt ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m venv --without-pip /opt/lantern \
    && pip --python /opt/lantern install --only-binary=:all: -r build.txt \
    && pip --python /opt/lantern install --only-binary=:all: --no-binary=flasgger \
        --no-build-isolation --use-pep517 -r onnx.txt \
    && pip --python /opt/lantern uninstall --yes setuptools
# Tests of libraries, and source maps of Swagger UI.
RUN find /opt/lantern -depth -path '*/site-packages/*' \
        \( -type d -name tests -o -name '*.js.map' -o -name '*.css.map' \) -exec rm -r {} +

# The same with torch. Its wheels for the CPU and for CUDA have different requirements, so each has a
# lock.
FROM onnx-libraries AS torch-libraries
ARG TORCH=cpu
ARG PIP_EXTRA_INDEX_URL=""
COPY locks/torch-${TORCH}.txt ./torch.txt
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip --python /opt/lantern install --only-binary=:all: -r torch.txt \
    || { echo "If torch was not found, pass its index: see the first lines of the Dockerfile." >&2; exit 1; }
# Tests again, and what is only needed to compile extensions.
RUN cd /opt/lantern/lib/python3.11/site-packages \
    && find sympy -depth -type d -name tests -exec rm -r {} + \
    && find torch/bin -type f ! -name torch_shm_manager -delete \
    && rm -r torch/test torch/include

# Lantern's wheel, alone in an environment at the same path: the images add it to their libraries.
FROM installer AS package
COPY locks/wheel.txt ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m venv --without-pip /opt/hatchling \
    && pip --python /opt/hatchling install --only-binary=:all: -r wheel.txt \
    && python -m venv --without-pip /opt/lantern
COPY pyproject.toml README.md LICENSE ./
COPY config/default.toml ./config/
COPY models/campaign-response ./models/campaign-response
COPY app ./app
RUN /opt/hatchling/bin/python -m hatchling build --target wheel --directory dist \
    && PIP_REQUIRE_HASHES=0 pip --python /opt/lantern install --no-index --no-deps dist/*.whl

# Readable by all, whatever the permissions in the checkout.
FROM python:3.11-slim AS directory
WORKDIR /lantern
COPY config ./config
COPY models ./models
RUN chmod -R u=rwX,go=rX .

FROM python:3.11-slim AS service
LABEL org.opencontainers.image.title="Lantern" \
      org.opencontainers.image.description="Serves trained models over HTTP" \
      org.opencontainers.image.version="0.1.0"

# By number, because Kubernetes can't check that a name isn't root's.
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin lantern
WORKDIR /lantern

# ONNX Runtime would send telemetry, from threads that don't survive a fork.
ENV PATH="/opt/lantern/bin:$PATH" \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    ORT_DISABLE_TELEMETRY=1 \
    LANTERN_CONFIG=config/production.toml \
    LANTERN_ACCESS__KEYS_FILE=/lantern/keys/keys.json

USER 10001:10001
EXPOSE 8000

# Not urllib.request, which would go through the proxy in HTTP_PROXY.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; service = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('LANTERN_SERVER__PORT') or os.environ.get('PORT') or 8000), timeout=4); service.request('GET', os.environ.get('LANTERN_SERVER__PREFIX', os.environ.get('SCRIPT_NAME', '')).rstrip('/') + '/health/ready'); sys.exit(service.getresponse().status != 200)"]

# Gunicorn runs in the container's first process, so SIGTERM reaches it.
CMD ["lantern", "serve"]

# What changes least comes first: a new model changes only the last layer.
FROM service AS onnx
COPY --from=onnx-libraries /opt/lantern /opt/lantern
COPY --from=package /opt/lantern /opt/lantern
COPY --from=directory /lantern /lantern

FROM service AS torch
COPY --from=torch-libraries /opt/lantern /opt/lantern
COPY --from=package /opt/lantern /opt/lantern
COPY --from=directory /lantern /lantern

# Lantern in a container, as small as what it serves:
#   docker build --target onnx -t lantern:0.1.0-onnx .     ONNX models only, without torch
#   docker build -t lantern:0.1.0 .                        torch for the CPU, too
# PyTorch's builds for the CPU are in an index of its own: give its address as
# --build-arg PIP_EXTRA_INDEX_URL=... or, with all else that pip must know to reach your packages (it
# stays out of the image), as --secret id=pip,src=pip.conf. For GPUs, from the default index:
#   docker build --build-arg TORCH=cuda -t lantern:0.1.0-cuda .
#
#   docker run --rm --publish 127.0.0.1:8000:8000 --stop-timeout 70 --read-only --tmpfs /tmp \
#       --volume $PWD/models:/lantern/models:ro --volume $PWD/keys:/lantern/keys:ro lantern:0.1.0
#
# It runs `lantern serve` in /lantern, on ./models and the settings in ./config there; without a volume
# these are the checkout's. Any other command of `lantern` works in place of `lantern serve`. So a key
# is made, before the service starts:
#   mkdir keys && chown 10001:10001 keys
#   docker run --rm --volume $PWD/keys:/lantern/keys lantern:0.1.0 lantern key create shop
# It listens on all of the container's interfaces, where a key is asked for: without a file of keys
# every prediction is answered 401, and only health is open. Where something in front of it decides
# who gets there, say so: --env LANTERN_ACCESS__AUTH=none.

FROM python:3.11-slim AS installer
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PIP_REQUIRE_HASHES=1
WORKDIR /build

# What both kinds of image install. Every file is one that the locks know by its hash; flasgger alone
# comes as source, and what builds it is locked too.
FROM installer AS onnx-libraries
COPY locks/build.txt locks/onnx.txt ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m venv --without-pip /opt/lantern \
    && pip --python /opt/lantern install --only-binary=:all: -r build.txt \
    && pip --python /opt/lantern install --only-binary=:all: --no-binary=flasgger \
        --no-build-isolation --use-pep517 -r onnx.txt \
    && pip --python /opt/lantern uninstall --yes setuptools
# Tests of libraries, and maps by which a browser's debugger finds the source of Swagger UI.
RUN find /opt/lantern -depth -path '*/site-packages/*' \
        \( -type d -name tests -o -name '*.js.map' -o -name '*.css.map' \) -exec rm -r {} +

# The same with torch. The wheel for the CPU and the one with CUDA are different files with different
# requirements, so each has a lock.
FROM onnx-libraries AS torch-libraries
ARG TORCH=cpu
ARG PIP_EXTRA_INDEX_URL=""
COPY locks/torch-${TORCH}.txt ./torch.txt
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip --python /opt/lantern install --only-binary=:all: -r torch.txt \
    || { echo "If torch was not found, give its index: see the first lines of the Dockerfile." >&2; exit 1; }
# Tests again, and what only compilers of extensions want; nothing can be compiled in this image.
RUN cd /opt/lantern/lib/python3.11/site-packages \
    && find sympy -depth -type d -name tests -exec rm -r {} + \
    && find torch/bin -type f ! -name torch_shm_manager -delete \
    && rm -r torch/test torch/include

# Lantern itself: the wheel, and the same environment with nothing but that in it.
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

# Readable for all, whatever the checkout's files are.
FROM python:3.11-slim AS directory
WORKDIR /lantern
COPY config ./config
COPY models ./models
RUN chmod -R u=rwX,go=rX .

FROM python:3.11-slim AS service
LABEL org.opencontainers.image.title="Lantern" \
      org.opencontainers.image.description="Serves trained PyTorch classifiers over HTTP" \
      org.opencontainers.image.version="0.1.0"

# A number, because Kubernetes can't tell that a name isn't root's.
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin lantern
WORKDIR /lantern

# ONNX Runtime would report to its makers what it runs and where, and its threads for that don't survive
# a fork.
ENV PATH="/opt/lantern/bin:$PATH" \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    ORT_DISABLE_TELEMETRY=1 \
    LANTERN_CONFIG=config/production.toml \
    LANTERN_ACCESS__KEYS_FILE=/lantern/keys/keys.json

USER 10001:10001
EXPOSE 8000

# Not urllib.request: it would ask the proxy of HTTP_PROXY, where one is set.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; service = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('LANTERN_SERVER__PORT') or os.environ.get('PORT') or 8000), timeout=4); service.request('GET', os.environ.get('LANTERN_SERVER__PREFIX', os.environ.get('SCRIPT_NAME', '')).rstrip('/') + '/health/ready'); sys.exit(service.getresponse().status != 200)"]

# Gunicorn runs in the container's first process, so a SIGTERM reaches it.
CMD ["lantern", "serve"]

# What changes least comes first: a new model changes the last layer alone.
FROM service AS onnx
COPY --from=onnx-libraries /opt/lantern /opt/lantern
COPY --from=package /opt/lantern /opt/lantern
COPY --from=directory /lantern /lantern

FROM service AS torch
COPY --from=torch-libraries /opt/lantern /opt/lantern
COPY --from=package /opt/lantern /opt/lantern
COPY --from=directory /lantern /lantern

# Lantern in a container:
#   docker build -t lantern:0.1.0 .
#   docker run --rm --publish 8000:8000 --stop-timeout 70 lantern:0.1.0
# It runs with a read-only root file system too: --read-only --tmpfs /tmp.
FROM python:3.11-slim

# pip's default index has torch for x86-64 with CUDA, gigabytes that a CPU has no use for. With the
# address of PyTorch's index of CPU builds here, pip takes the build without them.
ARG PIP_EXTRA_INDEX_URL=""

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1

# A number, because Kubernetes can't tell that a name isn't root's.
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin lantern

WORKDIR /lantern

# What changes least comes first, so that a new model doesn't install the libraries again.
COPY requirements.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
        -r requirements.txt

COPY wsgi.py gunicorn.conf.py ./
COPY config ./config
COPY app ./app
COPY models ./models

# Workers show that they live by touching a file, which must not wait for a disk. ONNX Runtime would
# report to its makers what it runs and where, and its threads for that don't survive a fork.
ENV HOME=/tmp \
    ORT_DISABLE_TELEMETRY=1 \
    LANTERN_CONFIG=config/production.toml \
    GUNICORN_CMD_ARGS="--worker-tmp-dir=/dev/shm"

USER 10001:10001
EXPOSE 8000

# Not urllib.request: it would ask the proxy of HTTP_PROXY, where one is set.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; service = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('LANTERN_SERVER__PORT', 8000)), timeout=4); service.request('GET', '/health/ready'); sys.exit(service.getresponse().status != 200)"]

CMD ["gunicorn", "wsgi:app"]

# The server. pip's own index brings torch with CUDA; TORCH_INDEX_URL names an index with another build, the CPU's say.
#   docker build -f deploy/docker/runtime.Dockerfile -t ghcr.io/kaito-project/kaito-runtime:0.1.0 .
#   docker build -f deploy/docker/runtime.Dockerfile --build-arg TORCH_INDEX_URL=https://... -t kaito-runtime:cpu .
FROM python:3.12-slim AS wheels
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . runtime plugins/falcon plugins/llama

FROM python:3.12-slim
# Triton compiles a small launcher for each kernel with the C compiler that it finds.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY constraints.txt /tmp/constraints.txt
ARG TORCH_INDEX_URL=
RUN pip install --no-cache-dir ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} -c /tmp/constraints.txt torch==2.13.0
# What is installed here was built above; constraints.txt pins the rest.
# hadolint ignore=DL3013
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    pip install --no-cache-dir --find-links /wheels -c /tmp/constraints.txt \
        'kaito-runtime[torch]' kaito-falcon kaito-llama
ENV PYTHONUNBUFFERED=1 HOME=/tmp
USER 65532:65532
EXPOSE 5000
ENTRYPOINT []
CMD ["kaito-runtime", "serve", "--help"]

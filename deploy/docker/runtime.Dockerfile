# The server. pip's own index brings torch with CUDA; TORCH_INDEX_URL names an index with another build, the CPU's say.
#   docker build -f deploy/docker/runtime.Dockerfile -t ghcr.io/kaito-project/kaito-runtime:0.1.0 .
#   docker build -f deploy/docker/runtime.Dockerfile --build-arg TORCH_INDEX_URL=https://... -t kaito-runtime:cpu .
FROM python:3.12-slim AS wheels
WORKDIR /src
COPY . .
# Folders begin with "./": pip looks for a bare word on the index, and runs what it finds there.
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . ./runtime ./plugins/falcon ./plugins/llama

FROM python:3.12-slim
# Triton compiles a small launcher for each kernel with the C compiler that it finds.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
ARG TORCH_INDEX_URL=
RUN --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    pip install --no-cache-dir ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} -c /constraints.txt torch==2.13.0
# Ours are installed as files, so that the index is asked for the rest alone, and for the versions in constraints.txt.
# hadolint ignore=DL3013
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    pip install --no-cache-dir -c /constraints.txt /wheels/*.whl 'kaito-runtime[torch]'
RUN groupadd --gid 65532 kaito && useradd --uid 65532 --gid kaito --create-home kaito && chmod 755 /home/kaito
# pip puts plugins that are added below the base. In a pod HOME is a volume, for caches; the base is what it is here.
ENV PYTHONUNBUFFERED=1 HOME=/home/kaito PYTHONUSERBASE=/home/kaito/.local
USER 65532:65532
EXPOSE 5000
ENTRYPOINT []
CMD ["kaito-runtime", "serve", "--help"]

# The operator: kaito-core and the first-party plugins' operator halves; no torch in it.
#   docker build -f deploy/docker/operator.Dockerfile -t ghcr.io/kaito-project/kaito-operator:0.1.0 .
# Another plugin is two lines: FROM this image, RUN pip install it.
FROM python:3.12-slim AS wheels
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --wheel-dir /wheels . plugins/falcon plugins/llama plugins/mistral plugins/phi plugins/qwen \
        plugins/gpu_onprem plugins/gpu_azure plugins/gpu_aws

FROM python:3.12-slim
# Only what was built above is there to install.
# hadolint ignore=DL3013
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links /wheels \
        kaito-core kaito-falcon kaito-llama kaito-mistral kaito-phi kaito-qwen \
        kaito-gpu-onprem kaito-gpu-azure kaito-gpu-aws
# A broken plugin stops the start (exit status 2) instead of being left out unseen.
ENV KAITO_STRICT_PLUGINS=true PYTHONUNBUFFERED=1 HOME=/tmp
USER 65532:65532
EXPOSE 8081
ENTRYPOINT ["kaito"]
CMD ["operator"]

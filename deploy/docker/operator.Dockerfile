# The operator: kaito-core and the first-party plugins' operator halves; no torch in it.
#   docker build -f deploy/docker/operator.Dockerfile -t ghcr.io/kaito-project/kaito-operator:0.1.0 .
# Another plugin is two lines: FROM this image, RUN pip install it.
FROM python:3.12-slim AS wheels
WORKDIR /src
COPY . .
# Folders begin with "./": pip looks for a bare word on the index, and runs what it finds there.
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels \
        . ./plugins/falcon ./plugins/llama ./plugins/mistral ./plugins/phi ./plugins/qwen \
        ./plugins/gpu_onprem ./plugins/gpu_azure ./plugins/gpu_aws ./plugins/karpenter

FROM python:3.12-slim
# Ours are installed as files, so that the index is asked for the rest alone, and for the versions in constraints.txt.
# hadolint ignore=DL3013
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    pip install --no-cache-dir -c /constraints.txt /wheels/*.whl 'kaito-core[operator]'
# pip puts plugins that are added below the home: not in /tmp, which a volume covers in a pod. Any uid may read them.
RUN groupadd --gid 65532 kaito && useradd --uid 65532 --gid kaito --create-home kaito && chmod 755 /home/kaito
# A broken plugin stops the start (exit status 2) instead of being left out unseen.
ENV KAITO_STRICT_PLUGINS=true PYTHONUNBUFFERED=1 HOME=/home/kaito
USER 65532:65532
EXPOSE 8081
ENTRYPOINT ["kaito"]
CMD ["operator"]

# One image for `serve`, `worker` and `migrate`. Other images to build from, such as a mirror's: --build-arg BASE=…
ARG NODE=node:24.11.0-trixie-slim
ARG BASE=python:3.13.9-slim-trixie

# GraphiQL's page.
FROM ${NODE} AS web
WORKDIR /build/web
COPY web/package.json web/package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY web ./
RUN npm run build

# The packages, each by its hash, and ours as a wheel.
FROM ${BASE} AS packages
WORKDIR /build
RUN python -m venv /tools && python -m venv --without-pip /srv/venv
COPY requirements.lock requirements-build.lock ./
RUN /tools/bin/pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: -r requirements-build.lock \
 && /tools/bin/pip --python /srv/venv/bin/python install --no-cache-dir --no-deps --require-hashes --only-binary :all: \
    -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
COPY graph graph
COPY resolvers resolvers
COPY providers providers
COPY persistence persistence
COPY --from=web /build/gateway/static gateway/static
RUN /tools/bin/pip wheel --no-cache-dir --no-deps --no-index --no-build-isolation --wheel-dir /wheels . \
 && /tools/bin/pip --python /srv/venv/bin/python install --no-cache-dir --no-deps --no-index /wheels/*.whl

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="AI Middleware" \
      org.opencontainers.image.description="One GraphQL API in front of every large-language-model provider." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN groupadd --gid 1001 ai-middleware \
 && useradd --uid 1001 --gid 1001 --no-create-home --home-dir /data --shell /usr/sbin/nologin ai-middleware \
 && install --directory --owner 1001 --group 1001 --mode 700 /data
COPY --from=packages /srv/venv /srv/venv
ENV PATH=/srv/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ENVIRONMENT=PRODUCTION \
    HOST=0.0.0.0 \
    PORT=8080 \
    INTERNAL_PORT=8081 \
    MAX_WORKERS=4 \
    KEEP_ALIVE_S=5 \
    DATA_DIR=/data
USER 1001:1001
WORKDIR /srv
VOLUME /data
EXPOSE 8080 8081
HEALTHCHECK --interval=30s --timeout=30s --start-period=5s --retries=3 \
    CMD ["sh", "-c", "exec python -I -m gateway.healthcheck \"$PORT\" \"$INTERNAL_PORT\""]
ENTRYPOINT ["ai-middleware"]
CMD ["serve"]

#!/bin/sh
# Prints the Secrets that exporters, Grafana, Alertmanager and Fluent Bit need:
#
#   REDIS_PASSWORD=… PAGERDUTY_ROUTING_KEY=… SLACK_WEBHOOK_URL=… HEARTBEAT_TOKEN=… ELASTICSEARCH_PASSWORD=… \
#     k8s/observability/make-secrets.sh ai-middleware | kubectl apply -f -
#
# REDIS_PASSWORD is that of the Secret ai-middleware-data-secrets. Run it once: other passwords would not be those that the
# databases have. On standard error it says what to run on PostgreSQL, whose role it can't make.
set -eu

namespace=${1:?"the application's namespace, such as ai-middleware"}
: "${REDIS_PASSWORD:?}" "${PAGERDUTY_ROUTING_KEY:?}" "${SLACK_WEBHOOK_URL:?}" "${HEARTBEAT_TOKEN:?}" "${ELASTICSEARCH_PASSWORD:?}"
secret() { openssl rand -hex 24; }

postgres=$(secret) mongodb=$(secret)
members=ai-middleware-mongodb-0.ai-middleware-mongodb-svc:27017,ai-middleware-mongodb-1.ai-middleware-mongodb-svc:27017,ai-middleware-mongodb-2.ai-middleware-mongodb-svc:27017

cat <<YAML
apiVersion: v1
kind: Secret
metadata:
  name: ai-middleware-exporters
  namespace: '$namespace'
stringData:
  postgres-uri: 'postgresql://exporter:$postgres@ai-middleware-timescaledb:5432/ai_middleware?sslmode=disable'
  mongodb-password: '$mongodb'
  mongodb-uri: 'mongodb://exporter:$mongodb@$members/?replicaSet=ai-middleware-mongodb&authSource=admin'
  redis-password: '$REDIS_PASSWORD'
---
apiVersion: v1
kind: Secret
metadata:
  name: grafana-admin
  namespace: monitoring
stringData:
  password: '$(secret)'
---
apiVersion: v1
kind: Secret
metadata:
  name: alertmanager-receivers
  namespace: monitoring
stringData:
  pagerduty-routing-key: '$PAGERDUTY_ROUTING_KEY'
  slack-webhook-url: '$SLACK_WEBHOOK_URL'
  heartbeat-token: '$HEARTBEAT_TOKEN'
---
apiVersion: v1
kind: Secret
metadata:
  name: fluent-bit-elasticsearch
  namespace: logging
stringData:
  password: '$ELASTICSEARCH_PASSWORD'
YAML

cat >&2 <<SQL
On TimescaleDB's primary, as its superuser:
  CREATE ROLE exporter LOGIN PASSWORD '$postgres' CONNECTION LIMIT 5;
  GRANT pg_monitor TO exporter;
  GRANT CONNECT ON DATABASE ai_middleware TO exporter;
SQL

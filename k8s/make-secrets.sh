#!/bin/sh
# Prints the Secrets that the production overlay needs, with passwords that nobody has seen before:
#
#   OPENAI_API_KEY=sk-… k8s/make-secrets.sh ai-middleware | kubectl apply -f -
#
# Run it once for a cluster: other passwords would not open what was made with the first. Vendors' keys are taken from the
# environment where they are set; keep the output in a safe if you keep it at all.
set -eu

namespace=${1:?"the namespace, such as ai-middleware"}
secret() { openssl rand -hex 24; }

mongodb=$(secret) mongodb_backup=$(secret) timescale=$(secret) redis=$(secret) rabbitmq=$(secret)
members=ai-middleware-mongodb-0.ai-middleware-mongodb-svc:27017,ai-middleware-mongodb-1.ai-middleware-mongodb-svc:27017,ai-middleware-mongodb-2.ai-middleware-mongodb-svc:27017
nodes=ai-middleware-redis-0.ai-middleware-redis:6379,ai-middleware-redis-1.ai-middleware-redis:6379,ai-middleware-redis-2.ai-middleware-redis:6379

vendor() { eval "value=\${$2:-}"; [ -z "$value" ] || printf "  %s: '%s'\n" "$1" "$value"; }

cat <<YAML
apiVersion: v1
kind: Secret
metadata:
  name: ai-middleware-secrets
  namespace: '$namespace'
stringData:
  mongodb-uri: 'mongodb://ai-middleware:$mongodb@$members/ai_middleware?replicaSet=ai-middleware-mongodb&authSource=ai_middleware'
  mongodb-backup-uri: 'mongodb://backup:$mongodb_backup@$members/ai_middleware?replicaSet=ai-middleware-mongodb&authSource=admin'
  timescale-uri: 'postgresql://ai_middleware:$timescale@ai-middleware-timescaledb:5432/ai_middleware?sslmode=prefer'
  timescale-replica-uri: 'postgresql://ai_middleware:$timescale@ai-middleware-timescaledb-replica:5432/ai_middleware?sslmode=prefer'
  redis-uri: 'redis://:$redis@$nodes'
  rabbitmq-uri: 'amqp://ai-middleware:$rabbitmq@ai-middleware-rabbitmq:5672/'
  jwt-secret: '$(openssl rand -hex 48)'
  encryption-key: '$(openssl rand -base64 32)'
YAML
vendor openai-key OPENAI_API_KEY
vendor anthropic-key ANTHROPIC_API_KEY
vendor google-key GOOGLE_API_KEY
vendor groq-key GROQ_API_KEY
vendor mistral-key MISTRAL_API_KEY
vendor openrouter-key OPENROUTER_API_KEY
cat <<YAML
---
apiVersion: v1
kind: Secret
metadata:
  name: ai-middleware-data-secrets
  namespace: '$namespace'
stringData:
  mongodb-password: '$mongodb'
  mongodb-backup-password: '$mongodb_backup'
  timescale-superuser-password: '$(secret)'
  timescale-password: '$timescale'
  timescale-replication-password: '$(secret)'
  timescale-backup-password: '$(secret)'
  redis-password: '$redis'
  rabbitmq-password: '$rabbitmq'
  rabbitmq-erlang-cookie: '$(secret)'
YAML

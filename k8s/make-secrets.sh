#!/bin/sh
# Prints the Secrets that the production overlay needs, with passwords that nobody has seen before:
#
#   OPENAI_API_KEY=sk-… k8s/make-secrets.sh ai-middleware | kubectl create -f -
#
# Once for a cluster: other passwords would not open what was made with the first, and `kubectl create` (not `apply`) refuses to
# put them in their place. Vendors' keys are taken from the environment where they are set; keep the output in a safe if you keep
# it at all.
set -eu

namespace=${1:?"the namespace, such as ai-middleware"}
case $namespace in *[!a-z0-9-]*) echo "make-secrets: '$namespace' is no name of a namespace" >&2; exit 2 ;; esac
secret() { openssl rand -hex 24; }

# Nothing is printed before all of it is there. One a line: `set -e` heeds the last of a line alone.
mongodb=$(secret)
mongodb_backup=$(secret)
timescale=$(secret)
timescale_superuser=$(secret)
timescale_replication=$(secret)
timescale_backup=$(secret)
redis=$(secret)
rabbitmq=$(secret)
erlang_cookie=$(secret)
jwt=$(openssl rand -hex 48)
encryption=$(openssl rand -base64 32)
members=ai-middleware-mongodb-0.ai-middleware-mongodb-svc:27017,ai-middleware-mongodb-1.ai-middleware-mongodb-svc:27017,ai-middleware-mongodb-2.ai-middleware-mongodb-svc:27017
nodes=ai-middleware-redis-0.ai-middleware-redis:6379,ai-middleware-redis-1.ai-middleware-redis:6379,ai-middleware-redis-2.ai-middleware-redis:6379

# As YAML quotes: https://yaml.org/spec/1.2.2/#732-single-quoted-style
vendor() {
  eval "value=\${$2:-}"
  case $value in *[[:cntrl:]]*) echo "make-secrets: $2 has more than one line, or other signs that no key has" >&2; exit 2 ;; esac
  [ -z "$value" ] || printf "\n  %s: '%s'" "$1" "$(printf %s "$value" | sed "s/'/''/g")"
}
vendors=$(
  vendor openai-key OPENAI_API_KEY
  vendor anthropic-key ANTHROPIC_API_KEY
  vendor google-key GOOGLE_API_KEY
  vendor groq-key GROQ_API_KEY
  vendor mistral-key MISTRAL_API_KEY
  vendor openrouter-key OPENROUTER_API_KEY
)

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
  jwt-secret: '$jwt'
  encryption-key: '$encryption'$vendors
---
apiVersion: v1
kind: Secret
metadata:
  name: ai-middleware-data-secrets
  namespace: '$namespace'
stringData:
  mongodb-password: '$mongodb'
  mongodb-backup-password: '$mongodb_backup'
  timescale-superuser-password: '$timescale_superuser'
  timescale-password: '$timescale'
  timescale-replication-password: '$timescale_replication'
  timescale-backup-password: '$timescale_backup'
  redis-password: '$redis'
  rabbitmq-password: '$rabbitmq'
  rabbitmq-erlang-cookie: '$erlang_cookie'
YAML

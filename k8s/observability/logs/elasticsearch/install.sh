#!/bin/sh
# Tells Elasticsearch how to keep the log, and Kibana how to show it. May be run again.
#
#   ELASTICSEARCH_URL=https://elasticsearch.example.com:9200 KIBANA_URL=https://kibana.example.com \
#     CREDENTIALS=FILE CA=ca.crt k8s/observability/logs/elasticsearch/install.sh
#
# FILE is a netrc: `machine elasticsearch.example.com login elastic password …`, and the same of Kibana's. On a command line
# others would see it.
set -eu

: "${ELASTICSEARCH_URL:?}" "${KIBANA_URL:?}" "${CREDENTIALS:?}" "${CA:?}"
here=$(dirname "$0")
ask() { curl --fail-with-body --silent --show-error --netrc-file "$CREDENTIALS" --cacert "$CA" "$@" && echo; }

ask -X PUT -H 'Content-Type: application/json' --data-binary "@$here/ilm-policy.json" "$ELASTICSEARCH_URL/_ilm/policy/ai-middleware-logs"
ask -X PUT -H 'Content-Type: application/json' --data-binary "@$here/index-template.json" "$ELASTICSEARCH_URL/_index_template/ai-middleware-logs"
# What Fluent Bit may do, and no more; its user is made by who has its password.
ask -X PUT -H 'Content-Type: application/json' --data-binary "@$here/writer-role.json" "$ELASTICSEARCH_URL/_security/role/ai-middleware-log-writer"
ask -X POST -H 'kbn-xsrf: true' --form "file=@$here/kibana.ndjson" "$KIBANA_URL/api/saved_objects/_import?overwrite=true"

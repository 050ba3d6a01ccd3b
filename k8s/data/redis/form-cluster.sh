#!/bin/sh
# Makes one cluster of the nodes in NODES ("host:port host:port …"), one replica for each master. Safe at any time: nodes that
# are a cluster already are made known to each other again, which mends one whose pods all came back with other addresses. One that
# was not made to its end, and so has no keys, is made anew.
set -eu

ask() { host=${1%:*} port=${1##*:}; shift; redis-cli -h "$host" -p "$port" "$@"; }
address() { getent hosts "${1%:*}" | awk '{print $1; exit}'; }

members=""
for node in $NODES; do
  until [ "$(ask "$node" ping 2>/dev/null)" = PONG ]; do echo "waiting for $node"; sleep 1; done
  members="$members $(address "$node"):${node##*:}"
done
first=${NODES%% *}

keys=0 count=0
for node in $NODES; do keys=$((keys + $(ask "$node" dbsize))) count=$((count + 1)); done
slots=$(ask "$first" cluster info | tr -d '\r' | sed -n 's/^cluster_slots_assigned://p')
replicas=$(ask "$first" cluster nodes | grep -c slave || true)

if [ "$keys" = 0 ] && { [ "$slots" != 16384 ] || [ "$replicas" -lt $((count / 2)) ]; }; then
  for node in $NODES; do ask "$node" cluster reset hard; done
  # shellcheck disable=SC2086
  redis-cli --cluster create $members --cluster-replicas 1 --cluster-yes
else
  for member in $members; do ask "$first" cluster meet "${member%:*}" "${member##*:}"; done
fi

# A replica that heard of its master's address from others goes on asking the old one until it is told. Told the same once more, it
# would begin its copy anew, and never end where a copy takes longer than we wait.
show_master() {
  nodes=$(ask "$1" cluster nodes)
  master=$(echo "$nodes" | awk '$3 ~ /myself,slave/ {print $4}')
  if [ -z "$master" ]; then return; fi
  known=$(echo "$nodes" | awk -v id="$master" '$1 == id {sub(/@.*/, "", $2); print $2}')
  asked=$(ask "$1" info replication | tr -d '\r' | awk -F: '$1 == "master_host" {host = $2} $1 == "master_port" {print host ":" $2}')
  if [ "$known" != "$asked" ]; then ask "$1" cluster replicate "$master" > /dev/null || true; fi
}

for node in $NODES; do
  # Not `cluster_state`, which is ok without all of them (cluster-require-full-coverage).
  until ask "$node" cluster info | grep -q '^cluster_slots_ok:16384' &&
    ask "$node" info replication | grep -Eq '^(role:master|master_link_status:up)'; do
    echo "$node does not serve yet"
    sleep 1
    show_master "$node"
  done
done
echo "the cluster serves all slots"

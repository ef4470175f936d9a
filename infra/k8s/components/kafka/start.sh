#!/bin/sh
# Starts the broker of this pod: its number is the pod's, its name that of the pod in the headless Service.
set -eu
# shellcheck disable=SC3028 # the environment of a container has it
node=${HOSTNAME##*-}
{
    cat /etc/kafka-server/server.properties
    echo "node.id=$node"
    # shellcheck disable=SC3028
    echo "advertised.listeners=BROKER://$HOSTNAME.kafka-brokers:9092"
} >/tmp/server.properties
/opt/kafka/bin/kafka-storage.sh format --ignore-formatted "--cluster-id=$(cat /run/secrets/kafka/CLUSTER_ID)" --config /tmp/server.properties
exec /opt/kafka/bin/kafka-server-start.sh /tmp/server.properties

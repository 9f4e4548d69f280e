#!/bin/sh
# Gangs, LeaderWorkerSets and RoleBasedGroups: Pods that are of use only together.
set -eu
. "$(dirname "$0")/../lib.sh"
clean_up() { for node in a b; do coracle node delete "lesson-9-$node"; done; }
begin lesson-9

coracle addons enable gang lws rbg
kubectl create namespace lesson-9
coracle node add lesson-9-a --fake --gpu 2 --label lesson=9 --taint lesson=9:NoSchedule
kubectl wait node/lesson-9-a --for=condition=Ready --timeout=30s

# Three are needed and there is room for two: nobody gets anything.
kubectl apply -f gang.yaml
refused() {
  out=$(coracle explain pod "$(kubectl get pods -n lesson-9 -l app=train -o name | head -n 1)" -n lesson-9) &&
    says "2 of 3 pods that it needs find a node" "$out"
}
eventually 30 refused
expect "placed whole or not at all" "$out"
out=$(kubectl get pods -n lesson-9 -l app=train -o wide)
same "" "$(kubectl get pods -n lesson-9 -l app=train -o jsonpath='{.items[*].spec.nodeName}')" "nodes of a gang that waits"

# With room for the third one, all get a node: between the first and the last there is nothing but the gang's own writes.
coracle node add lesson-9-b --fake --gpu 1 --label lesson=9 --taint lesson=9:NoSchedule
kubectl rollout status deployment/train -n lesson-9 --timeout=60s
bound() {
  for pod in $(kubectl get pods -n lesson-9 -l app=train -o name); do
    coracle history "$pod" -n lesson-9 | awk '/spec.nodeName: / {print $1, $4, $6}'
  done
}
out=$(bound)
same 3 "$(echo "$out" | wc -l)" "Pods that got a node"

# A worker that fails takes its whole group along, and the group starts anew.
kubectl apply -f lws.yaml
kubectl wait lws/model -n lesson-9 --for=condition=Available --timeout=60s
same "model-0.model.lesson-9 3 2" "$(kubectl exec model-0-2 -n lesson-9 -- sh -c 'echo $LWS_LEADER_ADDRESS $LWS_GROUP_SIZE $LWS_WORKER_INDEX')" "what a worker is told"
kubectl exec model-0-2 -n lesson-9 -- touch /tmp/end
for n in $(seq 60); do coracle history pod/model-0 -n lesson-9 | grep -q deleted && break; sleep 1; done
anew() {
  out=$(coracle history pod/model-0 -n lesson-9 | grep -E 'created|deleted' | awk -v from="$(revision)" '$1 > from')
  says deleted "$out" && [ "$(echo "$out" | grep -c created)" -eq 2 ]
}
eventually 60 anew
kubectl wait lws/model -n lesson-9 --for=condition=Available --timeout=60s

# Roles in the order of what they need: when the first Pod of `web` was created, `store` was ready.
kubectl apply -f rbg.yaml
kubectl wait rbg/shop -n lesson-9 --for=condition=Ready --timeout=60s
web=$(kubectl get pods -n lesson-9 -l rolebasedgroup.workloads.x-k8s.io/role=web -o name | head -n 1)
out=$(coracle at "$(coracle history "$web" -n lesson-9 | awk '/created/ {at = $1} END {print at}')" -- kubectl get pods -n lesson-9)
expect "shop-store-0" "$(echo "$out" | grep 1/1)"

kubectl delete namespace lesson-9
coracle node delete lesson-9-a lesson-9-b

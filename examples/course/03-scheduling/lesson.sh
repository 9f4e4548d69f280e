#!/bin/sh
# Scheduling: which node was refused by whom, which one scored how much, and who had to go.
set -eu
. "$(dirname "$0")/../lib.sh"
clean_up() {
  kubectl delete priorityclass lesson-3-urgent --ignore-not-found
  for node in a b c; do coracle node delete "lesson-3-$node"; done
}
begin lesson-3

kubectl create namespace lesson-3
coracle node add lesson-3-a --fake --cpu 2 --label lesson=3 --taint lesson=3:NoSchedule
coracle node add lesson-3-b --fake --cpu 8 --label lesson=3 --taint lesson=3:NoSchedule
kubectl wait node lesson-3-a lesson-3-b --for=condition=Ready --timeout=30s

# Two nodes would do for the small one, and the emptier wins; for the big one there is one.
kubectl apply -f pods.yaml
kubectl wait pod small big -n lesson-3 --for=condition=Ready --timeout=30s
out=$(coracle explain pod small -n lesson-3)
expect "2 would do" "$out"
expect "NodeResourcesFit" "$out"
expect "by NodeAffinity: node(s) didn't match Pod's node affinity/selector" "$out"
expect "Node:       lesson-3-b" "$out"
out=$(coracle explain pod big -n lesson-3)
expect "1 would do" "$out"
expect "1 by NodeResourcesFit: Insufficient cpu (lesson-3-a)" "$out"

# The urgent one takes the place of the big one.
kubectl apply -f urgent.yaml
kubectl wait pod urgent -n lesson-3 --for=condition=Ready --timeout=30s
same lesson-3-b "$(kubectl get pod urgent -n lesson-3 -o jsonpath='{.spec.nodeName}')" "the node of urgent"
kubectl get pod urgent -n lesson-3 -o wide
expect "status.nominatedNodeName:  → lesson-3-b" "$(changes pod/urgent)"
out=$(coracle history pod/big -n lesson-3 | tail -n 3)
expect "kube-scheduler" "$out"
expect DisruptionTarget "$out"
expect deleted "$out"

# The huge one fits nowhere, and says what it waits for; a node that has that wakes it.
kubectl apply -f huge.yaml
refused() {
  out=$(coracle explain pod huge -n lesson-3)
  says "2 Insufficient cpu" "$out" && says "Waits for:" "$out"
}
eventually 30 refused
coracle node add lesson-3-c --fake --cpu 32 --label lesson=3 --taint lesson=3:NoSchedule
kubectl wait pod huge -n lesson-3 --for=condition=Ready --timeout=30s
expect "Node:       lesson-3-c" "$(coracle explain pod huge -n lesson-3)"

kubectl delete namespace lesson-3
kubectl delete priorityclass lesson-3-urgent
coracle node delete lesson-3-a lesson-3-b lesson-3-c

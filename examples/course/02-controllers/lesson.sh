#!/bin/sh
# What a controller is: it compares what is desired with what is there, and whatever happened, writes the difference.
set -eu
. "$(dirname "$0")/../lib.sh"
begin lesson-2

kubectl create namespace lesson-2
kubectl apply -f web.yaml
kubectl rollout status deployment/web -n lesson-2 --timeout=60s

# A Pod that is gone is replaced.
kubectl delete -n lesson-2 "$(kubectl get pods -n lesson-2 -l app=web -o name | head -n 1)"
kubectl rollout status deployment/web -n lesson-2 --timeout=60s
coracle history "$(kubectl get rs -n lesson-2 -o name)" -n lesson-2
replaced() {
  out=$(changes "$(kubectl get rs -n lesson-2 -o name)")
  says "status.readyReplicas: 3 → 2" "$out" && says "status.readyReplicas: 2 → 3" "$out"
}
eventually 30 replaced

# Whoever changes what a controller owns has it taken back.
kubectl scale "$(kubectl get rs -n lesson-2 -o name)" -n lesson-2 --replicas=5
kubectl wait "$(kubectl get rs -n lesson-2 -o name)" -n lesson-2 --for=jsonpath='{.spec.replicas}'=3 --timeout=30s
out=$(coracle history "$(kubectl get rs -n lesson-2 -o name)" -n lesson-2 | grep spec.replicas)
expect "spec.replicas: 3 → 5" "$out"
expect "spec.replicas: 5 → 3" "$out"

# A Pod without the label is nobody's: it is let go, and another one takes its place.
kubectl rollout status deployment/web -n lesson-2 --timeout=60s
kubectl label "$(kubectl get pods -n lesson-2 -l app=web -o name | head -n 1)" -n lesson-2 app-
let_go() {
  out=$(changes "$(kubectl get pods -n lesson-2 -l '!app' -o name)")
  says "metadata.labels.app: web → " "$out" && says "metadata.ownerReferences: " "$out"
}
eventually 30 let_go
coracle history "$(kubectl get pods -n lesson-2 -l '!app' -o name)" -n lesson-2 | grep -o 'metadata.*' | tail -n 2
three() { [ "$(kubectl get pods -n lesson-2 -l app=web -o name | wc -l)" -eq 3 ]; }
eventually 30 three
kubectl get pods -n lesson-2 --show-labels

# Where nothing differs, nothing is written.
kubectl rollout status deployment/web -n lesson-2 --timeout=60s
versions() { coracle history deployment/web -n lesson-2 | wc -l; }
settled() { before=$(versions); sleep 1; [ "$before" = "$(versions)" ]; }
eventually 30 settled
expect unchanged "$(kubectl apply -f web.yaml)"
sleep 1
same "$before" "$(versions)" "versions of the Deployment after an apply that changes nothing"

kubectl delete namespace lesson-2

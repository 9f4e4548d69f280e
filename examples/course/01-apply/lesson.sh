#!/bin/sh
# From apply to running: who wrote what, one revision after the other.
set -eu
. "$(dirname "$0")/../lib.sh"
begin lesson-1

kubectl create namespace lesson-1
kubectl apply -f web.yaml
kubectl rollout status deployment/web -n lesson-1 --timeout=60s

# One command was typed, and all of this came of it.
out=$(coracle diff "$(kubectl get namespace lesson-1 -o jsonpath='{.metadata.resourceVersion}')")
for object in "deployment.apps/web -n" "replicaset.apps/web-" "pod/web-" "serviceaccount/default -n"; do
  expect "+ $object" "$out"
done

# The Pod was written by four, each of whom added its part.
out=$(coracle history "$(kubectl get pods -n lesson-1 -l app=web -o name)" -n lesson-1)
expect created "$out"
out=$(changes "$(kubectl get pods -n lesson-1 -l app=web -o name)")
for change in "spec.nodeName:  → " "kubelet status.phase: Pending → Running" "kubelet status.podIP:  → "; do
  expect "$change" "$out"
done

# One story of it all, with what each write followed from.
out=$(coracle timeline deployment/web -n lesson-1)
for words in "created Deployment web" "created ReplicaSet web-" "created Pod web-" "bound Pod web-" "start container web"; do
  expect "$words" "$out"
done
expect "← ReplicaSet web-" "$out"

# At its first revision it had no node; now it runs on one.
out=$(coracle at "$(coracle history "$(kubectl get pods -n lesson-1 -l app=web -o name)" -n lesson-1 | awk '/created/ {at = $1} END {print at}')" -- kubectl get pods -n lesson-1 -o wide)
expect Pending "$out"
expect "<none>" "$out"
out=$(kubectl get pods -n lesson-1 -o wide)
expect Running "$out"

kubectl delete namespace lesson-1

#!/bin/sh
# Autoscaling: what was measured, what was computed from it, and what was done, each with its revision.
set -eu
. "$(dirname "$0")/../lib.sh"
begin lesson-7

kubectl create namespace lesson-7
kubectl apply -f web.yaml
kubectl rollout status deployment/web -n lesson-7 --timeout=60s
kubectl wait hpa/web -n lesson-7 --for=condition=ScalingActive --timeout=90s
kubectl get hpa web -n lesson-7
kubectl get --raw '/apis/custom.metrics.k8s.io/v1beta2/namespaces/lesson-7/pods/*/queue_length'

# 35 wait in front of one Pod, ten may: ceil(35 / 10) = 4.
kubectl exec deployment/web -n lesson-7 -- sh -c 'echo queue_length 35 >/www/metrics'
kubectl wait deployment/web -n lesson-7 --for=jsonpath='{.status.readyReplicas}'=4 --timeout=90s
coracle history hpa/web -n lesson-7 -o json | grep -E -A 2 'desiredReplicas|averageValue'
out=$(changes hpa/web)
expect "status.desiredReplicas: 1 → 4" "$out"
out=$(coracle history deployment/web -n lesson-7 | grep spec.replicas)
expect "spec.replicas: 1 → 4" "$out"
out=$(kubectl get events -n lesson-7 --field-selector=reason=SuccessfulRescale)
expect "pods metric queue_length above target" "$out"

# Nobody waits any more. After the time of stabilization there is one again.
for pod in $(kubectl get pods -n lesson-7 -l app=web -o name); do
  kubectl exec "$pod" -n lesson-7 -- sh -c 'echo queue_length 0 >/www/metrics'
done
kubectl wait deployment/web -n lesson-7 --for=jsonpath='{.spec.replicas}'=1 --timeout=90s
shrunk() { out=$(changes hpa/web) && says "status.desiredReplicas: 4 → 1" "$out"; }
eventually 30 shrunk

kubectl delete namespace lesson-7

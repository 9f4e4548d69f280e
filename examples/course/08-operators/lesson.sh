#!/bin/sh
# CRDs and operators: a kind of one's own, and a controller whose every reconcile is typed by hand.
set -eu
. "$(dirname "$0")/../lib.sh"
clean_up() { kubectl delete crd sites.course.example.com --ignore-not-found --timeout=60s; }
begin lesson-8

kubectl create namespace lesson-8
kubectl apply -f crd.yaml
kubectl wait crd/sites.course.example.com --for=condition=Established --timeout=30s

# The kind has a schema, and that is all: an object is refused or kept, and nothing happens.
! out=$(kubectl apply -f wrong.yaml 2>&1) || fail "an object that breaks its schema was taken"
expect "should be less than or equal to 5" "$out"
kubectl apply -f site.yaml
kubectl get sites -n lesson-8
same "" "$(kubectl get deployments -n lesson-8 -o name)" "Deployments without an operator"

# One reconcile makes the Deployment, the next one has nothing to do but to tell that it is there.
sh operator.sh
kubectl rollout status deployment/hello -n lesson-8 --timeout=60s
sh operator.sh
same 2 "$(kubectl get site hello -n lesson-8 -o jsonpath='{.status.ready}')" "ready as the Site tells it"
versions() { coracle history deployment/hello -n lesson-8 | wc -l; }
before=$(versions)
sh operator.sh
same "$before" "$(versions)" "versions of the Deployment after a reconcile with nothing to do"

# What others change is put right, and the history says who did what.
kubectl scale deployment/hello -n lesson-8 --replicas=5
sh operator.sh
out=$(coracle history deployment/hello -n lesson-8 | grep spec.replicas)
expect "spec.replicas: 2 → 5" "$out"
expect "spec.replicas: 5 → 2" "$out"
expect site-operator "$out"

# What belonged to the Site goes with it, without the operator.
kubectl delete site hello -n lesson-8
kubectl wait deployment/hello -n lesson-8 --for=delete --timeout=60s
out=$(coracle history deployment/hello -n lesson-8 | tail -n 1)
expect deleted "$out"

kubectl delete namespace lesson-8
kubectl delete crd sites.course.example.com

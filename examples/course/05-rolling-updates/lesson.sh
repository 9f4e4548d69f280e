#!/bin/sh
# Rolling updates: each step of one, after it is over, and what was promised is looked up for each revision.
set -eu
. "$(dirname "$0")/../lib.sh"
begin lesson-5

kubectl create namespace lesson-5
kubectl apply -f web.yaml
kubectl rollout status deployment/web -n lesson-5 --timeout=60s
old=$(kubectl get rs -n lesson-5 -o name)
first=$(kubectl get deployment web -n lesson-5 -o jsonpath='{.metadata.resourceVersion}')

kubectl set env deployment/web -n lesson-5 VERSION=two
kubectl rollout status deployment/web -n lesson-5 --timeout=90s

# Two staircases: one goes up as the other goes down.
new=$(kubectl get rs -n lesson-5 -o name --sort-by=.metadata.creationTimestamp | tail -n 1)
[ "$new" != "$old" ] || fail "there is no new ReplicaSet"
coracle history "$new" -n lesson-5 | grep spec.replicas
stairs=$(changes "$new")
for step in "1 → 2" "2 → 3" "3 → 4"; do expect "spec.replicas: $step" "$stairs"; done
stairs=$(changes "$old")
for step in "4 → 3" "3 → 2" "2 → 1" "1 → 0"; do expect "spec.replicas: $step" "$stairs"; done

# In the middle of what is over, both versions ran.
middle=$(coracle history "$new" -n lesson-5 | awk '/spec.replicas: 2 → 3/ {at = $1} END {print at}')
coracle at "$middle" -- kubectl get rs,pods -n lesson-5
same 2 "$(coracle at "$middle" -- kubectl get "$new" -n lesson-5 -o jsonpath='{.status.readyReplicas}')" "new and ready"
same 2 "$(coracle at "$middle" -- kubectl get "$old" -n lesson-5 -o jsonpath='{.status.readyReplicas}')" "old and ready"

# What was promised held at each revision: never fewer than four are ready, never more than five are there.
for revision in $(coracle history "$new" -n lesson-5 | awk 'NR > 1 {print $1}'); do
  [ "$revision" -gt "$first" ] || continue
  coracle at "$revision" -- kubectl get deployment web -n lesson-5 --no-headers
  numbers=$(coracle at "$revision" -- kubectl get deployment web -n lesson-5 -o jsonpath='{.status.readyReplicas} {.status.replicas}')
  [ "${numbers% *}" -ge 4 ] && [ "${numbers#* }" -le 5 ] || fail "ready and all at revision $revision: $numbers"
done

# A release that does not start gets no further than its first Pod, and the others go on.
kubectl set env deployment/web -n lesson-5 VERSION=
! kubectl rollout status deployment/web -n lesson-5 --timeout=5s || fail "a release that does not start was rolled out"
crashes() { out=$(kubectl get pods -n lesson-5) && says Crash "$out" || says Error "$out"; }
eventually 30 crashes
same 4 "$(kubectl get deployment web -n lesson-5 -o jsonpath='{.status.readyReplicas}')" "ready beside it"
kubectl rollout undo deployment/web -n lesson-5
kubectl rollout status deployment/web -n lesson-5 --timeout=60s
out=$(coracle history deployment/web -n lesson-5 | grep -o 'VERSION.*')
expect "one → two" "$out"
expect "+ two" "$out"

kubectl delete namespace lesson-5

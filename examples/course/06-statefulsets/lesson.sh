#!/bin/sh
# StatefulSets and storage: an order, names that last longer than Pods, and volumes that last longer than both.
set -eu
. "$(dirname "$0")/../lib.sh"
begin lesson-6

kubectl create namespace lesson-6
kubectl apply -f db.yaml
kubectl rollout status statefulset/db -n lesson-6 --timeout=90s

# One after the other: when db-1 was created, db-0 was ready and db-2 was not there.
second=$(coracle history pod/db-1 -n lesson-6 | awk '/created/ {at = $1} END {print at}')
out=$(coracle at "$second" -- kubectl get pods -n lesson-6)
expect "db-0   1/1     Running" "$out"
expect "db-1   0/1     Pending" "$out"
reject db-2 "$out"

# A Pod of the same name comes back: another Pod, the same volume.
before=$(kubectl get pod db-1 -n lesson-6 -o jsonpath='{.metadata.uid}')
kubectl delete pod db-1 -n lesson-6
kubectl wait pod/db-1 -n lesson-6 --for=create --timeout=60s
kubectl wait pod/db-1 -n lesson-6 --for=condition=Ready --timeout=60s
[ "$(kubectl get pod db-1 -n lesson-6 -o jsonpath='{.metadata.uid}')" != "$before" ] || fail "db-1 is the same Pod as before"
out=$(kubectl exec db-1 -n lesson-6 -- cat /data/starts)
same "db-1 started
db-1 started" "$out" "what is on the volume"
two_lives() {
  out=$(coracle history pod/db-1 -n lesson-6 | grep -E 'created|deleted' | awk -v from="$(revision)" '$1 > from')
  [ "$(echo "$out" | grep -c created)" -eq 2 ] && [ "$(echo "$out" | grep -c deleted)" -eq 1 ]
}
eventually 30 two_lives
found() {
  out=$(kubectl exec db-0 -n lesson-6 -- nslookup db-1.db.lesson-6.svc.cluster.local)
  says "$(kubectl get pod db-1 -n lesson-6 -o jsonpath='{.status.podIP}')" "$out"
}
eventually 30 found

# Down again from the last to the first. The claims stay, and with them the data.
kubectl scale statefulset/db -n lesson-6 --replicas=1
kubectl wait pod/db-1 pod/db-2 -n lesson-6 --for=delete --timeout=60s
gone_at() { coracle history "pod/$1" -n lesson-6 | awk '/deleted/ {at = $1} END {print at}'; }
[ "$(gone_at db-2)" -lt "$(gone_at db-1)" ] || fail "db-1 went before db-2"
out=$(kubectl get pvc -n lesson-6)
expect "data-db-2   Bound" "$out"
kubectl scale statefulset/db -n lesson-6 --replicas=2
kubectl wait pod/db-1 -n lesson-6 --for=create --timeout=60s
kubectl wait pod/db-1 -n lesson-6 --for=condition=Ready --timeout=60s
same 3 "$(kubectl exec db-1 -n lesson-6 -- cat /data/starts | wc -l)" "starts that are noted on the volume"

kubectl delete namespace lesson-6

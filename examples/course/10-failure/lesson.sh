#!/bin/sh
# Failure and recovery: a container that ends, a node that is emptied, and a control plane that is killed. The last one
# disturbs all others who use the cluster.
set -eu
. "$(dirname "$0")/../lib.sh"
clean_up() { for node in a b; do coracle node delete "lesson-10-$node"; done; }
begin lesson-10

kubectl create namespace lesson-10
kubectl apply -f web.yaml
kubectl rollout status deployment/web -n lesson-10 --timeout=60s

# A container that ends is started again: the same Pod, a second container.
kubectl exec deployment/web -n lesson-10 -- touch /tmp/end
kubectl wait pod -l app=web -n lesson-10 --for=jsonpath='{.status.containerStatuses[0].restartCount}'=1 --timeout=60s
out=$(coracle history "$(kubectl get pods -n lesson-10 -l app=web -o name)" -n lesson-10)
echo "$out"
expect created "$out"
reject deleted "$out"
same 3 "$(kubectl get pods -n lesson-10 -l app=web -o jsonpath='{.items[0].status.containerStatuses[0].lastState.terminated.exitCode}')" "exit code of the first container"
kubectl rollout status deployment/web -n lesson-10 --timeout=60s

# A node is emptied. The budget held at each revision, and each eviction has its place in the history.
coracle node add lesson-10-a --fake --label lesson=10 --taint lesson=10:NoSchedule
kubectl wait node/lesson-10-a --for=condition=Ready --timeout=30s
kubectl apply -f spread.yaml
kubectl rollout status deployment/spread -n lesson-10 --timeout=60s
coracle node add lesson-10-b --fake --label lesson=10 --taint lesson=10:NoSchedule
kubectl wait node/lesson-10-b --for=condition=Ready --timeout=30s
kubectl wait pdb/spread -n lesson-10 --for=jsonpath='{.status.disruptionsAllowed}'=1 --timeout=30s
kubectl drain lesson-10-a --timeout=60s
kubectl rollout status deployment/spread -n lesson-10 --timeout=60s
kubectl get pods -n lesson-10 -l app=spread -o wide
same "lesson-10-b lesson-10-b lesson-10-b" "$(kubectl get pods -n lesson-10 -l app=spread -o jsonpath='{.items[*].spec.nodeName}')" "nodes after the drain"
coracle history pdb/spread -n lesson-10 | grep -o 'currentHealthy: [^;]*'
out=$(changes pdb/spread)
expect "status.currentHealthy: 3 → 2" "$out"
reject "status.currentHealthy: 2 → 1" "$out"

# The control plane is killed. The container does not notice, and nothing that was acknowledged is lost, nor is the past.
kubectl create configmap note -n lesson-10 --from-literal=written=before
container=$(kubectl get pods -n lesson-10 -l app=web -o jsonpath='{.items[0].status.containerStatuses[0].containerID}')
kill -9 "$(coracle status -o json | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p')"
! kubectl get pods -n lesson-10 2>/dev/null || fail "the control plane answers after it was killed"
docker ps --filter label=io.kubernetes.pod.namespace=lesson-10 --format '{{.Names}} {{.Status}}'
same true "$(docker inspect -f '{{.State.Running}}' "${container#docker://}")" "the container runs without a control plane"
coracle start
same before "$(kubectl get configmap note -n lesson-10 -o jsonpath='{.data.written}')" "what was written before"
same "$container" "$(kubectl get pods -n lesson-10 -l app=web -o jsonpath='{.items[0].status.containerStatuses[0].containerID}')" "the container after it"
expect "status.currentHealthy: 3 → 2" "$(changes pdb/spread)"
coracle history pdb/spread -n lesson-10 | grep -o 'currentHealthy: [^;]*' | tail -n 2

kubectl delete namespace lesson-10
coracle node delete lesson-10-a lesson-10-b

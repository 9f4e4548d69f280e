#!/bin/sh
# Services and DNS: a name, an address, and who is behind them at each moment.
set -eu
. "$(dirname "$0")/../lib.sh"
begin lesson-4

kubectl create namespace lesson-4
kubectl apply -f web.yaml
kubectl rollout status deployment/web -n lesson-4 --timeout=60s
kubectl wait pod/client -n lesson-4 --for=condition=Ready --timeout=60s

# The name of the Service is its address; the name of the headless one is those of the Pods.
resolves() {
  out=$(kubectl exec client -n lesson-4 -- nslookup web.lesson-4.svc.cluster.local)
  says "$(kubectl get service web -n lesson-4 -o jsonpath='{.spec.clusterIP}')" "$out"
}
eventually 30 resolves
pods_resolve() {
  out=$(kubectl exec client -n lesson-4 -- nslookup pods.lesson-4.svc.cluster.local)
  for ip in $(kubectl get pods -n lesson-4 -l app=web -o jsonpath='{.items[*].status.podIP}'); do
    says "$ip" "$out" || return 1
  done
}
eventually 30 pods_resolve
answers() {
  out=$(kubectl exec client -n lesson-4 -- wget -qO- http://web) && says web- "$out"
}
eventually 30 answers

# From this machine.
out=$(coracle service web -n lesson-4 --url)
expect http:// "$out"
outside() { out=$(curl -s -m 5 "$(coracle service web -n lesson-4 --url)") && says web- "$out"; }
eventually 30 outside

# One Pod is no longer ready. Nobody is sent there any more, and it goes on running.
kubectl exec "$(kubectl get pods -n lesson-4 -l app=web -o name | head -n 1)" -n lesson-4 -- rm /www/ready
kubectl wait deployment/web -n lesson-4 --for=jsonpath='{.status.readyReplicas}'=1 --timeout=30s
left_out() {
  out=$(changes "$(kubectl get endpointslices -n lesson-4 -l kubernetes.io/service-name=web -o name)")
  says "conditions.ready: true → false" "$out"
}
eventually 30 left_out
coracle history "$(kubectl get endpointslices -n lesson-4 -l kubernetes.io/service-name=web -o name)" -n lesson-4
others() {
  out=$(kubectl exec client -n lesson-4 -- sh -c 'for n in 1 2 3 4 5 6 7 8; do wget -qO- http://web; done | sort -u')
  [ "$(echo "$out" | wc -l)" -eq 1 ]
}
eventually 30 others
out=$(kubectl get pods -n lesson-4)
same 3 "$(echo "$out" | grep -c Running)" "Pods that run"

kubectl delete namespace lesson-4

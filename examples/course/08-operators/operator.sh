#!/bin/sh
# An operator: it gets what is desired, applies what follows from that, and tells how far it is. Each run is one reconcile
# of all Sites; a real one runs again whenever a Site, or what belongs to it, has changed.
set -eu
kubectl get sites -n lesson-8 -o jsonpath='{range .items[*]}{.metadata.name} {.metadata.uid} {.spec.replicas} {.spec.page}{"\n"}{end}' |
  while read -r name uid replicas page; do
    kubectl apply --server-side --force-conflicts --field-manager=site-operator -f - <<Y
apiVersion: apps/v1
kind: Deployment
metadata:
  name: $name
  namespace: lesson-8
  ownerReferences:
  - {apiVersion: course.example.com/v1, kind: Site, name: $name, uid: $uid, controller: true}
spec:
  replicas: $replicas
  selector:
    matchLabels: {site: $name}
  template:
    metadata:
      labels: {site: $name}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: busybox:1.37
        env:
        - {name: PAGE, value: "$page"}
        command: [sh, -c, 'mkdir -p /www; echo "\$PAGE" >/www/index.html; exec httpd -f -p 8080 -h /www']
Y
    ready=$(kubectl get deployment "$name" -n lesson-8 -o jsonpath='{.status.readyReplicas}' </dev/null)
    kubectl patch site "$name" -n lesson-8 --subresource=status --type=merge --field-manager=site-operator \
      -p "{\"status\": {\"ready\": ${ready:-0}}}" </dev/null
  done

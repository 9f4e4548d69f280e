# shellcheck shell=sh
# Shared by the lessons' scripts, each of which runs as a test: it does what its page says, checks what the page claims,
# removes what it made, and tells by its exit code how that went.
#
# It takes `kubectl` and `coracle` on the PATH, both of them for the same running cluster, and
# COURSE_IMAGE, an image with busybox's applets in place of the one of the manifests.

: "${COURSE_IMAGE:=busybox:1.37}"
lesson=$(basename "$(dirname "$0")")
folder=$(cd "$(dirname "$0")" && pwd)

# begin NAMESPACE: starts afresh, in a folder with copies of the lesson's files. What else a lesson makes is removed by
# its function clean_up, if it has one.
begin() {
  namespace=$1
  work=$(mktemp -d)
  trap finish EXIT
  trap 'exit 130' INT TERM
  for file in "$folder"/*.yaml "$folder"/*.sh; do
    [ ! -f "$file" ] || sed "s|busybox:1.37|$COURSE_IMAGE|" "$file" >"$work/$(basename "$file")"
  done
  cd "$work"
  remove >/dev/null 2>&1
}

# Removes what the lesson makes, of this run or of one that was broken off.
remove() {
  kubectl delete namespace "$namespace" --ignore-not-found --timeout=60s || true
  if command -v clean_up >/dev/null; then clean_up || true; fi
}

finish() {
  code=$?
  trap - EXIT
  if [ "$code" -ne 0 ]; then
    {
      echo "--- $lesson failed; this is there:"
      kubectl get all -n "$namespace" -o wide
      kubectl get events -n "$namespace"
    } >&2 || true
  fi
  remove >/dev/null 2>&1
  rm -rf "$work"
  [ "$code" -ne 0 ] || echo "ok $lesson"
  exit "$code"
}

fail() {
  echo "FAIL $lesson: $*" >&2
  exit 1
}

# says WORDS TEXT: whether the text contains the words.
says() {
  case $2 in *"$1"*) return 0 ;; *) return 1 ;; esac
}

# expect WORDS TEXT: that it does.
expect() {
  says "$1" "$2" || fail "'$1' is missing in:
$2"
}

# reject WORDS TEXT: that it does not.
reject() {
  ! says "$1" "$2" || fail "'$1' is in:
$2"
}

# same EXPECTED ACTUAL WHAT
same() {
  [ "$1" = "$2" ] || fail "$3: expected '$1', found '$2'"
}

# revision: that of the lesson's namespace. What is older, under the same names, is of an earlier run.
revision() {
  kubectl get namespace "$namespace" -o jsonpath='{.metadata.resourceVersion}'
}

# changes KIND/NAME: every change of every version of an object of the lesson, one a line: the revision, the manager,
# and `path: old → new`. The table of `coracle history` shows the first few of each version only.
changes() {
  coracle history "$1" -n "$namespace" -o json | awk -v from="$(revision)" '
    function value(line) { sub(/^ *"[a-zA-Z]*": /, "", line); sub(/,$/, "", line); gsub(/^"|"$/, "", line); return line }
    /^    "revision": / { revision = value($0) }
    /^    "manager": / { manager = value($0) }
    /^        "path": / { path = value($0); old = ""; new = "" }
    /^        "from": / { old = value($0) }
    /^        "to": / { new = value($0) }
    /^      }/ && revision + 0 > from + 0 { print revision, manager, path ": " old " → " new }'
}

# eventually SECONDS COMMAND...: until the command succeeds, but no longer than that.
eventually() {
  end=$(($(date +%s) + $1))
  shift
  until "$@"; do
    [ "$(date +%s)" -lt "$end" ] || fail "in vain: $*"
    sleep 0.2
  done
}

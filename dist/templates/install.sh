#!/bin/sh
# Installs coracle @VERSION@: the program, its manual and completions for bash, zsh and fish.
#
#   curl -fsSL URL/install.sh | sh
#   sh install.sh --uninstall
#
# As root into /usr/local, as anybody else into ~/.local; $CORACLE_PREFIX says otherwise. $CORACLE_BASE_URL says where
# the files of the release are. Nothing is installed that does not have the checksum in its SHA256SUMS.
set -eu

version='@VERSION@'
base=${CORACLE_BASE_URL:-'@BASE_URL@'}

say() {
    printf '%s\n' "$*" >&2
}

fail() {
    say "install.sh: $*"
    exit 1
}

has() {
    command -v "$1" >/dev/null 2>&1
}

# get URL FILE
get() {
    if has curl; then
        curl -fsL -o "$2" "$1"
    elif has wget; then
        wget -q -O "$2" "$1"
    else
        fail "there is neither curl nor wget"
    fi
}

# sum FILE
sum() {
    if has sha256sum; then
        sha256sum "$1" | cut -d ' ' -f 1
    elif has shasum; then
        shasum -a 256 "$1" | cut -d ' ' -f 1
    else
        fail "there is neither sha256sum nor shasum"
    fi
}

# put MODE FILE TARGET: whole or not at all, and also over a program that runs.
put() {
    mkdir -p "$(dirname "$3")"
    cp "$2" "$3.new"
    chmod "$1" "$3.new"
    mv -f "$3.new" "$3"
}

uninstall() {
    [ -e "$bin/coracle" ] || fail "there is no $bin/coracle"
    rm -f "$bin/coracle" "$share/man/man1/coracle.1" "$share/man/man1/coracle-"*.1 \
        "$share/bash-completion/completions/coracle" "$share/zsh/site-functions/_coracle" \
        "$share/fish/vendor_completions.d/coracle.fish"
    say "coracle is removed from $bin; clusters that are left are in ~/.coracle."
}

install() {
    [ "$(uname -s)" = Linux ] || fail "coracle runs on Linux, and this is $(uname -s)"
    case $(uname -m) in
        x86_64 | amd64) arch=x86_64 ;;
        aarch64 | arm64) arch=aarch64 ;;
        *) fail "there is no coracle for this processor, $(uname -m)" ;;
    esac
    [ -n "$base" ] || fail "say where the files of the release are: CORACLE_BASE_URL=https://... sh install.sh"
    name=coracle-$version-$arch-linux

    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    trap 'exit 1' HUP INT TERM
    get "$base/SHA256SUMS" "$folder/sums" || fail "cannot get $base/SHA256SUMS"
    expected=$(sed -n "s/^\([0-9a-f]*\)  $name\.tar\.gz\$/\1/p" "$folder/sums")
    [ -n "$expected" ] || fail "there is no $name.tar.gz at $base"
    get "$base/$name.tar.gz" "$folder/archive" || fail "cannot get $base/$name.tar.gz"
    actual=$(sum "$folder/archive")
    [ "$actual" = "$expected" ] ||
        fail "$name.tar.gz is not the file of the release: its checksum is $actual, not $expected; nothing is installed"
    tar -xzf "$folder/archive" -C "$folder"
    new=$folder/$name
    "$new/coracle" --version >/dev/null 2>"$folder/error" ||
        fail "this build does not run on this machine: $(sed -n 1p "$folder/error")"

    for page in "$new"/man/*.1; do
        put 644 "$page" "$share/man/man1/${page##*/}"
    done
    put 644 "$new/completions/coracle.bash" "$share/bash-completion/completions/coracle"
    put 644 "$new/completions/_coracle" "$share/zsh/site-functions/_coracle"
    put 644 "$new/completions/coracle.fish" "$share/fish/vendor_completions.d/coracle.fish"
    put 755 "$new/coracle" "$bin/coracle"
    say "coracle $version is installed as $bin/coracle, with its manual and completions in $share."
    case :$PATH: in
        *:"$bin":*) say "Next: coracle start" ;;
        *) say "Next: add $bin to your PATH, and then: coracle start" ;;
    esac
    has docker || say "It needs Docker, which is not installed here."
}

# All of it is read before any of it runs: a download that is cut short does nothing.
main() {
    if [ -n "${CORACLE_PREFIX:-}" ]; then
        prefix=$CORACLE_PREFIX
    elif [ "$(id -u)" = 0 ]; then
        prefix=/usr/local
    else
        prefix=${HOME:?}/.local
    fi
    bin=$prefix/bin
    share=$prefix/share
    case ${1:-} in
        '') install ;;
        --uninstall) uninstall ;;
        *) fail "there is no option $1; there is --uninstall" ;;
    esac
}

main "$@"

#!/usr/bin/env bash
# Builds gradus, and the libraries that it is compared with under $PEERS_DIR (default ~/.cache/gradus-peers).
#
#   build.sh [PEER...]      of: gradus burn-flex burn-wgpu candle candle-native torch; by default all but candle-native
#
# Of each Rust peer, builds.txt there gets the times of a clean build of its smallest program, the number of crates, and
# the program's size.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${PEERS_DIR:-$HOME/.cache/gradus-peers}
mkdir -p "$out"

rust() { # name package features flags
    local name=$1 package=$2 features=$3
    export CARGO_TARGET_DIR="$out/target-$name" RUSTFLAGS="$4"
    local chosen=(--locked --manifest-path "$here/Cargo.toml" -p "$package" ${features:+--features "$features"})
    local options=(--release "${chosen[@]}")
    rm -rf "$CARGO_TARGET_DIR"
    cargo fetch -q --locked --manifest-path "$here/Cargo.toml"
    # Wall time, and what counts where others use the machine: time of the processors.
    TIMEFORMAT='%R s, of processors %U + %S s'
    local took
    took=$({ time cargo build "${options[@]}" --bin cold >"$out/build-$name.log" 2>&1; } 2>&1) ||
        { tail -20 "$out/build-$name.log"; exit 1; }
    local crates size
    crates=$(cargo tree "${chosen[@]}" -e normal --prefix none | sed 's/ (\*)$//' | sort -u | wc -l)
    size=$(wc -c <"$CARGO_TARGET_DIR/release/cold")
    echo "$name: clean build $took, $crates crates, $size bytes" | tee -a "$out/builds.txt"
    cargo build "${options[@]}" >>"$out/build-$name.log" 2>&1 || { tail -20 "$out/build-$name.log"; exit 1; }
    unset CARGO_TARGET_DIR RUSTFLAGS
}

[ $# -gt 0 ] || set -- gradus burn-flex burn-wgpu candle torch
for peer in "$@"; do
    case $peer in
    gradus) cargo build --release --manifest-path "$here/../../Cargo.toml" -p gradus ;;
    burn-flex | burn-wgpu) rust "$peer" peer-burn "${peer#burn-}" "" ;;
    candle) rust candle peer-candle "" "" ;;
    candle-native) rust candle-native peer-candle "" "-C target-cpu=native" ;;
    torch)
        python3 -m venv "$out/venv"
        "$out/venv/bin/pip" install -q torch numpy
        ;;
    *)
        echo "there is no peer $peer" >&2
        exit 1
        ;;
    esac
done

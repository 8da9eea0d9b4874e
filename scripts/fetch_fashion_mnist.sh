#!/usr/bin/env bash
# Fashion-MNIST (31 MB) into data/fashion-mnist: 60,000 + 10,000 grey images of 28×28 in ten classes, as the four
# gzipped IDX files of its authors. Run it again at any time: it repairs what is broken and otherwise does nothing.
#
#   scripts/fetch_fashion_mnist.sh              into data/fashion-mnist
#   scripts/fetch_fashion_mnist.sh --out DIR    into DIR; other files there stay as they are
#
# It takes the files from senet's cache, else from Debian's package dataset-fashion-mnist (no root needed), else from
# the authors' repository on GitHub. Their sha256 is checked in each case.

set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=scripts/lib.sh
source "$root/scripts/lib.sh"

out="$root/data/fashion-mnist"
case "${1-}" in
"") ;;
--out)
    [ -n "${2-}" ] || die "--out wants a folder" "scripts/fetch_fashion_mnist.sh --out DIR"
    out=$2
    ;;
-h | --help) usage "$0" && exit ;;
*) die "unknown argument: $1" "scripts/fetch_fashion_mnist.sh --help" ;;
esac

# sha256 of what the files hold when unzipped: Debian has zipped them anew, so the zipped bytes differ by source.
contents="\
c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888  train-images-idx3-ubyte.gz
bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9  train-labels-idx1-ubyte.gz
5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b  t10k-images-idx3-ubyte.gz
0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34  t10k-labels-idx1-ubyte.gz"
files=(train-images-idx3-ubyte.gz train-labels-idx1-ubyte.gz t10k-images-idx3-ubyte.gz t10k-labels-idx1-ubyte.gz)
repository=https://github.com/zalandoresearch/fashion-mnist
raw=$repository/raw/master/data/fashion
deb=dataset-fashion-mnist

sha256() { if command -v sha256sum >/dev/null; then sha256sum "$@"; else shasum -a 256 "$@"; fi; }

# Whether the folder $1 holds the four files, by what they hold. Half a second.
right() {
    local digest name
    while read -r digest name; do
        [ -f "$1/$name" ] && [ "$(gzip -dc "$1/$name" 2>/dev/null | sha256)" = "$digest  -" ] || return 1
    done <<<"$contents"
}

# The same by the zipped bytes, which `place` noted once it had found them right. A tenth of a second.
still_right() {
    [ -f "$1/sha256sums" ] && [ "$(cd "$1" && sha256 "${files[@]}" 2>/dev/null)" = "$(cat "$1/sha256sums")" ]
}

# Copies the four files from folder $1, found right, to folder $2, each under its name only when it is whole.
place() {
    local name
    mkdir -p "$2" || die "cannot write to $2"
    rm -f "$2/sha256sums"
    placing=$2
    for name in "${files[@]}"; do
        cp "$1/$name" "$2/.$name.partial"
        mv -f "$2/.$name.partial" "$2/$name"
    done
    (cd "$1" && sha256 "${files[@]}") >"$2/.sha256sums.partial"
    mv -f "$2/.sha256sums.partial" "$2/sha256sums"
    placing=""
}

placing="" work=""
clean_up() {
    if [ -n "$placing" ]; then rm -f "$placing"/.*-ubyte.gz.partial "$placing"/.sha256sums.partial; fi
    if [ -n "$work" ]; then rm -rf "$work"; fi
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The files, from Debian's package, into the folder $1.
from_debian() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    say "fetching fashion-mnist: debian's package $deb (31 MB)"
    # As root, apt would download as another user, who can't write here.
    local get=(apt-get -q -o APT::Sandbox::User=root download "$deb")
    (
        cd "$1"
        if ! "${get[@]}" >>log 2>&1; then
            # A fresh image has no package lists; without root they can't be had.
            [ "$(id -u)" = 0 ] && apt-get -q update >>log 2>&1 && "${get[@]}" >>log 2>&1
        fi && dpkg-deb -x "$deb"_*.deb package && mv package/usr/share/datasets/fashion-mnist/*.gz .
    )
}

# The files, from their authors, into the folder $1.
from_github() {
    local name
    say "fetching fashion-mnist: $repository (31 MB)"
    for name in "${files[@]}"; do
        if command -v curl >/dev/null; then
            curl -fsSL --retry 3 --connect-timeout 20 -o "$1/$name" "$raw/$name" || return 1
        elif command -v wget >/dev/null; then
            wget -q --tries 3 --timeout 20 -O "$1/$name" "$raw/$name" || return 1
        else
            say "neither curl nor wget is here"
            return 1
        fi
    done
}

# Fills the cache.
fetch() {
    local source
    need_mb "$cache" 200 "fashion-mnist"
    work=$(mktemp -d "$cache/.fashion-mnist.XXXXXX")
    for source in from_debian from_github; do
        mkdir "$work/$source"
        if "$source" "$work/$source"; then
            if right "$work/$source"; then
                place "$work/$source" "$stored"
                return
            fi
            say "these files are damaged: their sha256 is not that of fashion-mnist"
        fi
    done
    die "fashion-mnist could not be fetched" \
        "check the network; or download the four .gz files of $repository (data/fashion) to $stored, and run this again"
}

still_right "$out" && exit
stored="$cache/fashion-mnist"
if ! still_right "$stored"; then
    lock fashion-mnist
    rm -rf "$cache"/.fashion-mnist.?????? # a killed run's
    if ! still_right "$stored"; then
        # Files that were put there by hand need only our note of their sums.
        if right "$stored"; then place "$stored" "$stored.new" && rm -rf "$stored" && mv "$stored.new" "$stored"; else fetch; fi
    fi
fi
place "$stored" "$out"
say "fashion-mnist is in $out"

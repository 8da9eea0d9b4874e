#!/usr/bin/env bash
# Everything that building senet needs: the tools, and libtorch. Run it again at any time: it repairs what is broken
# and otherwise does nothing, in a moment and without a network.
#
#   scripts/setup.sh            check the tools, have libtorch in the cache, link .cargo/libtorch to it
#   scripts/setup.sh --verify   also compare every cached file with its sha256 (some seconds)
#
# Environment:
#   SENET_LIBTORCH=cpu|cuda     which libtorch; unset: cuda where nvidia-smi lists a GPU, else cpu
#   LIBTORCH=/path              your own libtorch with include/ and lib/; it is used as it is, nothing is downloaded
#   XDG_CACHE_HOME              the cache is senet/ in there, else in ~/.cache

set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=scripts/lib.sh
source "$root/scripts/lib.sh"

torch_version=2.13.0 # the one version that tch 0.26 accepts
rust_minimum=1.89
system="$(uname -s)-$(uname -m)"

verify=false
case "${1-}" in
"") ;;
--verify) verify=true ;;
-h | --help) usage "$0" && exit ;;
*) die "unknown argument: $1" "scripts/setup.sh --help" ;;
esac

# ---- tools ---------------------------------------------------------------------------------------------------------

# Whether the compiler takes C++20, which our own C++ and libtorch's headers are compiled as.
cxx_works() { "${CXX:-g++}" -std=c++20 -fsyntax-only -x c++ /dev/null 2>/dev/null; }

rust_works() {
    local version
    version=$(rustc --version 2>/dev/null) && command -v cargo >/dev/null || return 1
    version=${version#rustc }
    [ "$(printf '%s\n' "$rust_minimum" "${version%% *}" | sort -V | head -n 1)" = "$rust_minimum" ]
}

# A Python that can download wheels: any 3.9 or newer with pip. The first one on the path may lack pip while the
# system's own has it.
find_python() {
    for python in python3 /usr/bin/python3; do
        "$python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 9))' 2>/dev/null && return
    done
    return 1
}

# Prints the Debian packages that lack, by what they bring. With "download" also what only a download needs.
missing_packages() {
    cxx_works || echo g++
    command -v make >/dev/null || echo make
    command -v git >/dev/null || echo git
    # libjpeg-turbo, which turbojpeg builds: cmake, and nasm for its x86 assembly.
    command -v cmake >/dev/null || echo cmake
    case "$system" in *-x86_64) command -v nasm >/dev/null || echo nasm ;; esac
    if [ "${1-}" = download ]; then
        find_python || echo python3 python3-pip
    fi
}

apt_install() {
    local log
    log=$(mktemp)
    say "installing with apt-get: $*"
    # The package lists of a fresh image are empty or old: update them only when the install fails without.
    if ! DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@" >"$log" 2>&1 &&
        ! { DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 update &&
            DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@"; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        die "apt-get could not install: $*" "install them by hand, then run this again"
    fi
    rm -f "$log"
}

# Stops, naming all that lacks at once, unless it can be installed here.
check_tools() {
    local packages rust=""
    packages=$(missing_packages "${1-}" | tr '\n' ' ')
    packages=${packages% }
    if [ -n "$packages" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        # shellcheck disable=SC2086 # a list of words
        apt_install $packages
        packages=$(missing_packages "${1-}" | tr '\n' ' ')
        packages=${packages% }
    fi
    rust_works || rust="rust $rust_minimum or newer"
    [ -n "$packages$rust" ] || return 0

    say "error: the build needs what is missing here: $packages${packages:+${rust:+, }}$rust"
    case "$packages" in *g++*) say "  g++ (or the compiler in CXX) must know C++20: gcc 10 or clang 12, at least" ;; esac
    case "$packages" in *python3*) say "  python3 must be 3.9 or newer and have pip" ;; esac
    if [ -n "$packages" ]; then
        if command -v apt-get >/dev/null; then
            say "hint: sudo apt-get install $packages"
        else
            say "hint: install the packages that go by these names on your system: $packages"
        fi
    fi
    [ -z "$rust" ] || say "hint: install rust with rustup, or bring it up to date: rustup update stable"
    exit 1
}

# ---- a libtorch of the user's own ----------------------------------------------------------------------------------

check_own_libtorch() {
    case "$LIBTORCH" in
    /*) ;;
    *) die "LIBTORCH=$LIBTORCH is not an absolute path" "export LIBTORCH=\"\$PWD/$LIBTORCH\", or unset it and let this script get libtorch" ;;
    esac
    if [ ! -d "$LIBTORCH/include/torch" ] || { [ ! -e "$LIBTORCH/lib/libc10.so" ] && [ ! -e "$LIBTORCH/lib/libc10.dylib" ]; }; then
        die "LIBTORCH=$LIBTORCH is no libtorch: it lacks include/torch or lib/libc10" "unset LIBTORCH and let this script get one"
    fi
    local version
    version=$(awk '/^#define TORCH_VERSION_(MAJOR|MINOR|PATCH) / { v = v (v == "" ? "" : ".") $3 } END { print v }' \
        "$LIBTORCH/include/torch/headeronly/version.h" 2>/dev/null || true)
    if [ "${version:-unknown}" != "$torch_version" ]; then
        say "warning: LIBTORCH=$LIBTORCH is libtorch ${version:-of an unknown version}; tch wants $torch_version"
    fi
    say "using your own libtorch: LIBTORCH=$LIBTORCH"
}

if [ -n "${LIBTORCH-}" ]; then
    check_tools
    check_own_libtorch
    exit 0
fi

# ---- libtorch in the cache -----------------------------------------------------------------------------------------
#
#   libtorch-VERSION-PROFILE/           whole, or not there: it is renamed into place when finished
#     torch/{include,lib}               what .cargo/libtorch points to, laid out as in the wheel
#     nvidia/…                          CUDA's libraries, where torch/lib looks for them ($ORIGIN/../../nvidia)
#     lists/                            sha256 of every file
#     stamp                             profile, and the size of every library; written last
#   libtorch-VERSION-PROFILE.partial/   a download under way, or what a killed one has left

case "${SENET_LIBTORCH-}" in
cpu | cuda) profile=$SENET_LIBTORCH ;;
"")
    profile=cpu
    if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then profile=cuda; fi
    ;;
*) die "SENET_LIBTORCH=$SENET_LIBTORCH" "it can be cpu or cuda" ;;
esac
case "$system-$profile" in
Linux-x86_64-* | Linux-aarch64-* | Darwin-arm64-cpu) ;;
*) die "no ready-made libtorch $torch_version ($profile) for $system" "build it yourself and set LIBTORCH to its folder" ;;
esac

home="$cache/libtorch-$torch_version-$profile"
partial="$home.partial"
stamp_title="libtorch $torch_version $profile, layout 1"

# Whether the folder $1 looks whole: its stamp is there and every library has the size that it had when verified.
whole() {
    [ -f "$1/stamp" ] || return 1
    local title size path expected="" paths=()
    {
        read -r title
        [ "$title" = "$stamp_title" ] || return 1
        while read -r size path; do
            expected+="$size"$'\n'
            paths+=("$1/$path")
        done
    } <"$1/stamp"
    [ "${#paths[@]}" -gt 0 ] && [ "$(sizes "${paths[@]}")" = "${expected%$'\n'}" ]
}

# download FOLDER REQUIREMENT…: wheels of the interpreter-independent kind of build that we settled on, whatever this
# Python's version is. Settings that would make pip refuse or do otherwise are set aside; index, proxy and certificates
# of the user's pip configuration stay in force. Unfinished files lie beside the finished: /tmp may be too small.
download() {
    local into=$1 quiet=(-q) what
    shift
    what="$*"
    if [ -t 2 ]; then quiet=(); fi
    env -u PIP_CONSTRAINT -u PIP_DRY_RUN PIP_REQUIRE_VIRTUALENV=0 PIP_REQUIRE_HASHES=0 PIP_DISABLE_PIP_VERSION_CHECK=1 \
        TMPDIR="$partial/tmp" "$python" -m pip download ${quiet[@]+"${quiet[@]}"} --no-cache-dir --only-binary=:all: --python-version 3.12 \
        --dest "$into" "$@" >&2 ||
        die "pip could not download: ${what#--no-deps }" "check the network and 'python3 -m pip --version' (20.3 or newer), then run this again: what is already there is kept"
}

install_libtorch() {
    trap 'say "interrupted: run this again to go on"; exit 130' INT
    local wheels="$partial/wheels" tree="$partial/tree" megabytes line
    case "$system-$profile" in
    *-cuda) megabytes=9000 ;;
    *) megabytes=3000 ;;
    esac
    need_mb "$cache" "$megabytes" "libtorch for $profile, with the build that follows,"
    # Of what a killed run has left, only finished wheels are of use; pip compares them with the index's sha256.
    rm -rf "$tree" "$partial/old" "$partial/tmp"
    mkdir -p "$wheels" "$tree" "$partial/tmp"

    case "$system-$profile" in
    Darwin-*) say "downloading libtorch $torch_version (110 MB) to $home" ;;
    *-cpu) say "downloading libtorch $torch_version for cpu (540 MB; 530 MB when unpacked) to $home" ;;
    *) say "downloading libtorch $torch_version for cuda (2.4 GB; 3.7 GB when unpacked) to $home" ;;
    esac
    download "$wheels" --no-deps "torch==$torch_version"
    case "$system-$profile" in
    Linux-*-cpu)
        # Of CUDA, libtorch_cpu.so needs these two for its profiler, and nothing else.
        download "$wheels" --no-deps nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85
        ;;
    *-cuda)
        local requirements=()
        while IFS= read -r line; do requirements+=("$line"); done < <("$python" "$root/scripts/unpack_wheels.py" requires "$wheels"/torch-*.whl)
        # The last two hold headers that CUDA's own include.
        download "$wheels" "${requirements[@]}" 'nvidia-cuda-crt==13.0.*' 'nvidia-cuda-cccl==13.0.*'
        ;;
    esac

    say "unpacking and verifying"
    if ! "$python" "$root/scripts/unpack_wheels.py" unpack "$profile" "$tree" "$wheels"/*.whl; then
        rm -rf "$partial"
        die "the download was damaged, and is deleted" "run this again"
    fi
    echo "$torch_version" >"$tree/torch/build-version" # torch-sys compares it with the version that it wants
    if [ "$profile" = cpu ] && [ "${system%%-*}" = Linux ]; then
        # The wheel's libtorch.so pulls CUDA in. For the linker, which torch-sys tells to link "torch", this stands in;
        # at run time nobody asks for it.
        echo 'INPUT(-ltorch_cpu)' >"$tree/torch/lib/libtorch.so"
    fi
    # The dynamic loader's word that nothing lacks.
    local library
    for library in "$tree"/torch/lib/libtorch_cpu.{so,dylib}; do
        [ ! -e "$library" ] || "$python" -c 'import ctypes, sys; ctypes.CDLL(sys.argv[1])' "$library" ||
            die "libtorch does not load on this system" "the line above says what lacks; libtorch needs glibc 2.28 or newer"
    done

    local paths=()
    while IFS= read -r line; do paths+=("$line"); done < <(cd "$tree" && find . -type f \( -name '*.so*' -o -name '*.dylib' \) | LC_ALL=C sort)
    (
        cd "$tree"
        echo "$stamp_title"
        paste -d ' ' <(sizes "${paths[@]}") <(printf '%s\n' "${paths[@]}")
    ) >"$tree/stamp.new"
    mv "$tree/stamp.new" "$tree/stamp"
    whole "$tree" || die "could not write $tree in full" "is the disk full?"

    [ ! -e "$home" ] || mv "$home" "$partial/old"
    mv "$tree" "$home"
    rm -rf "$partial"
    say "libtorch $torch_version for $profile is ready"
}

# Has the link that .cargo/config.toml names point to the cache.
link_libtorch() {
    local link="$root/.cargo/libtorch" target="$home/torch" before
    before=$(readlink "$link" || true)
    [ "$before" != "$target" ] || return 0
    [ -L "$link" ] || [ ! -e "$link" ] || die "$link is in the way" "move it elsewhere: the link to libtorch belongs there"
    ln -sfn "$target" "$link"
    [ -n "$before" ] && [ -d "$root/target" ] || return 0
    # For cargo the path in LIBTORCH is the same as before; torch-sys has to be told that what lies there is not.
    say "libtorch has moved from $before to $target: torch-sys will be built again"
    (cd "$root" && cargo clean -q -p torch-sys && cargo clean -q -p torch-sys --release) ||
        say "warning: cargo clean -p torch-sys failed; run 'cargo clean' if linking fails"
}

if "$verify" && [ -d "$home" ]; then
    find_python || die "--verify needs python3 3.9 or newer, with pip"
    if "$python" "$root/scripts/unpack_wheels.py" verify "$home"; then
        say "every file of $home is as it was published"
    else
        rm -f "$home/stamp"
    fi
fi
if whole "$home"; then
    check_tools
else
    check_tools download
    find_python # check_tools looked in a subshell
    lock libtorch
    # Another run may have finished it while this one waited.
    if ! whole "$home"; then
        [ ! -e "$home" ] || say "the libtorch in $home is damaged: getting it again"
        install_libtorch
    fi
fi
link_libtorch

#!/usr/bin/env bash
# Tries every input of a folder of cases on the built command, with 8 GB of memory each, and prints a table: what was given,
# how it ended, how long it took, its last words. Ends with 1 if anything panicked, aborted, hung or let an escape sequence
# through: whether the words are right is for the reader to judge.
#
#   tests/cases.sh CASES_DIR [MARGAY]        (MARGAY: target/release/margay)
#   MODEL=resnet18.pth LABELS=labels.json tests/cases.sh CASES_DIR
#
# CASES_DIR has, at any depth:
#   *.pth *.pt *.ckpt *.bin *.safetensors   checkpoints, given to `inspect`
#   *.margay                                model files, given to predict, eval, bench, inspect and export
#   folders with *adapter*.safetensors      given as --adapter of 00_sane.margay
#   photos/*, and other pictures            given to `predict 00_sane.margay`, files and folders
#   folders/*                               folders of photos, given to `compress --dry-run` with MODEL and LABELS
#   labels/*                                lists of labels, each given with folders of photos
set -u
cases=$(realpath "${1:?usage: tests/cases.sh CASES_DIR [MARGAY]}")
here=$(realpath "$(dirname "$0")/..")
margay=$(realpath "${2:-$here/target/release/margay}")
data=$(realpath -m "$cases/../data/tin93")
model=${MODEL:-$data/resnet18.pth}
labels=${LABELS:-$data/labels.json}
seconds=${SECONDS_EACH:-60}
scratch=$(mktemp -d)
# Not for long: another user runs the command on a locked folder below.
chmod 755 "$scratch"
trap 'chmod -R u+rwX "$scratch"; rm -rf "$scratch"' EXIT
export MARGAY_CACHE_DIR="$scratch/cache"
cd "$scratch" || exit 2
sane=$(find "$cases" -name '00_sane.margay' | head -n 1)
photo=$(find "$cases" -name '00_clean.jpg' -path '*photos*' | sort | head -n 1)
tried=0 failed=0

# One row: its name, then the command.
try() {
    local name=$1 code started took words verdict=""
    shift
    started=$(date +%s%N)
    (ulimit -v 8000000; exec timeout -k 1 "$seconds" "$@") >out.txt 2>err.txt </dev/null
    code=$?
    took=$(( ($(date +%s%N) - started) / 1000000 ))
    words=$(grep -v '^$' err.txt | tail -n 3 | tr '\n\t|' '  /' | cat -v)
    # A command that succeeds answers on stdout.
    if [ "$code" -eq 0 ]; then words="$words → $(tail -n 2 out.txt | tr '\n\t|' '  /' | cat -v)"; fi
    case $code in
        0 | 1 | 2 | 3 | 4 | 5) ;;
        124 | 137) verdict="HANGS " ;;
        *) verdict="BREAKS " ;;
    esac
    if grep -q 'panicked at\|memory allocation of' err.txt; then verdict="BREAKS "; fi
    if grep -q $'[\x1b\x07\x08]' out.txt err.txt; then verdict="${verdict}ESCAPES "; fi
    tried=$((tried + 1))
    if [ -n "$verdict" ]; then failed=$((failed + 1)); fi
    printf '| %s | %s | %s%s | %s | %s |\n' "$name" "${command:-$2}" "$verdict" "$code" "$took" "${words:0:330}"
}

relative() { realpath -s --relative-to="$cases" "$1"; }

checkpoints() {
    find "$cases" \( -name '*.pth' -o -name '*.pt' -o -name '*.ckpt' -o -name '*.bin' -o -name '*.safetensors' \) \
        ! -name '*adapter*' | sort
}

echo '| input | command | exit | ms | last words |'
echo '|---|---|---|---|---|'
while IFS= read -r path; do try "$(relative "$path")" "$margay" inspect "$path"; done < <(checkpoints)

while IFS= read -r path; do
    name=$(relative "$path")
    try "$name" "$margay" predict "$path" "$photo"
    try "$name" "$margay" eval "$path" "$cases/strangers/folders/roboflow"
    try "$name" "$margay" bench "$path" --runs 1
    try "$name" "$margay" inspect "$path"
    try "$name" "$margay" export "$path" -o "$scratch/export-$tried.onnx"
done < <(find "$cases" -name '*.margay' | sort)

while IFS= read -r path; do
    try "$(relative "$path")" "$margay" predict "$sane" --adapter "$path" "$photo"
done < <(find "$cases" -name '*adapter*.safetensors' -printf '%h\n' | sort -u)

while IFS= read -r path; do
    try "$(relative "$path")" "$margay" predict "$sane" "$path"
done < <(find "$cases" -path '*/photos/*' ! -path '*/photos/*/*' | sort
    find "$cases" \( -iname '*.jpg' -o -iname '*.jpeg' -o -iname '*.png' -o -iname '*.tif*' -o -iname '*.webp' \
        -o -iname '*.gif' -o -iname '*.bmp' -o -iname '*.heic' -o -iname '*.avif' \) \
        ! -path '*/photos/*' ! -path '*/folders/*' | sort)

# As a user who may not read everything: root may.
plan() {
    local user=()
    if [ "$(id -u)" -eq 0 ]; then user=(setpriv --reuid 65534 --regid 65534 --clear-groups); fi
    command="compress --dry-run" try "$1" "${user[@]}" "$margay" compress --model "$model" --labels "$2" --data "$3" --dry-run --out "$scratch/out"
}

if [ -e "$model" ]; then
    mkdir -p "$MARGAY_CACHE_DIR" && chmod 777 "$MARGAY_CACHE_DIR"
    while IFS= read -r path; do
        copy="$scratch/$(basename "$path")"
        cp -r "$path" "$copy" && chmod -R u+w,a+rX "$copy"
        case $path in *locked*) chmod 000 "$(find "$copy" -mindepth 1 -maxdepth 2 -type d | sort | tail -n 1)" ;; esac
        plan "$(relative "$path")" "$labels" "$copy"
    done < <(find "$cases" -path '*/folders/*' ! -path '*/folders/*/*' | sort)
    while IFS= read -r path; do
        for folder in roboflow unicode; do
            if [ -e "$scratch/$folder" ]; then plan "$(relative "$path") + $folder" "$path" "$scratch/$folder"; fi
        done
    done < <(find "$cases" -path '*/labels/*' -type f | sort)
fi

# What is no file at all, as any input.
mkfifo fifo
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'
for what in "$scratch/fifo" /dev/zero "$scratch/socket"; do
    for extension in pth safetensors margay jpg; do
        name="$scratch/$(basename "$what").$extension"
        ln -sf "$what" "$name"
    done
    as=$(basename "$what")
    try "$as as .pth" "$margay" inspect "$scratch/$as.pth"
    try "$as as .safetensors" "$margay" inspect "$scratch/$as.safetensors"
    try "$as as .margay" "$margay" predict "$scratch/$as.margay" "$photo"
    try "$as as photo" "$margay" predict "$sane" "$scratch/$as.jpg"
    mkdir -p "adapter-$as" && ln -sf "$what" "adapter-$as/margay_adapter.safetensors"
    try "$as as adapter" "$margay" predict "$sane" --adapter "adapter-$as" "$photo"
    try "$as as recipe" "$margay" compress --recipe "$what" --dry-run
    try "$as as labels" "$margay" compress --model "$model" --labels "$what" --data "$cases/strangers/folders/roboflow" --dry-run
    try "$as as experiment" "$margay" experiment "$what" --dry-run
    try "$as as record" "$margay" report "$what"
done

echo
echo "$tried tried, $failed broke, hung or let an escape through"
[ "$failed" -eq 0 ]

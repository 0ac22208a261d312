#!/usr/bin/env bash
# [RECIPE=NAME] slurm/chain.sh OUT SCENES...
# Submits tile, pretrain and embed, each after the one before it has succeeded. The folders come
# from OUT, never from the time: the same call on the same OUT continues.
set -euo pipefail
if [ "$#" -lt 2 ]; then
  echo "usage: [RECIPE=NAME] slurm/chain.sh OUT SCENES..." >&2
  exit 2
fi
out=$1
shift
folder=$(cd "$(dirname "$0")" && pwd)
cd "$folder/.."
name=ecofm-$(basename "$out")
tile=$(sbatch --parsable --job-name="$name-tile" "$folder/tile.sbatch" "$out/archive" "$@")
pretrain=$(sbatch --parsable --job-name="$name-pretrain" \
  --dependency=afterok:"${tile%%;*}" --kill-on-invalid-dep=yes \
  "$folder/pretrain.sbatch" "$out/archive" "$out/run" "recipe=${RECIPE:-base}")
embed=$(sbatch --parsable --job-name="$name-embed" \
  --dependency=afterok:"${pretrain%%;*}" --kill-on-invalid-dep=yes \
  "$folder/embed.sbatch" "$out/archive" "$out/run" "$out/embeddings")
echo "tile $tile, pretrain $pretrain, embed $embed; then: ecofm cluster, compare, rank, score"

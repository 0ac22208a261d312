#!/usr/bin/env bash
# slurm/chain.sh OUT SCENES...
# Submits tile, pretrain and embed, each after the one before it has succeeded.
set -euo pipefail
out=$1
shift
folder=$(cd "$(dirname "$0")" && pwd)
tile=$(sbatch --parsable "$folder/tile.sbatch" "$out/archive" "$@")
pretrain=$(sbatch --parsable --dependency=afterok:"$tile" \
  "$folder/pretrain.sbatch" "$out/archive" "$out/run")
embed=$(sbatch --parsable --dependency=afterok:"$pretrain" \
  "$folder/embed.sbatch" "$out/archive" "$out/run" "$out/embeddings")
echo "tile $tile, pretrain $pretrain, embed $embed; then: ecofm cluster, compare, rank, score"

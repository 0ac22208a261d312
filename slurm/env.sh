# Sourced by every job: where the checkout and its .venv are. Edit for your cluster.
ECOFM="${ECOFM:-$SLURM_SUBMIT_DIR}"
cd "$ECOFM" || exit 1
# shellcheck disable=SC1091
source .venv/bin/activate
export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"

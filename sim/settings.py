"""Names and numbers that the runner, outside the simulator, and the benches, inside, agree on."""

import os

__all__ = [
    "CLOCK_NS",
    "CONFIG_VARIABLE",
    "COVERAGE_VARIABLE",
    "LIMIT_MS",
    "LIMIT_VARIABLE",
    "RANDOM_JOBS_VARIABLE",
    "SEED_VARIABLE",
]

#: Clock period of the simulations.
CLOCK_NS = 2
#: Environment variables: the configuration as JSON, the seed, the file for the coverage, and the
#: number of jobs of `random_jobs`.
CONFIG_VARIABLE = "TERN_HW_SIM_CONFIG"
SEED_VARIABLE = "TERN_HW_SIM_SEED"
COVERAGE_VARIABLE = "TERN_HW_SIM_COVERAGE"
RANDOM_JOBS_VARIABLE = "TERN_HW_SIM_RANDOM_JOBS"
#: Simulated time (ms) after which a test fails; the bench's own limits are tighter. The variable
#: lowers it, for arrays that are broken on purpose and may hang anywhere.
LIMIT_VARIABLE = "TERN_HW_SIM_LIMIT_MS"
LIMIT_MS = float(os.environ.get(LIMIT_VARIABLE, "20"))

"""For maintainers: the table of error rates that notebook 4 shows, some twenty minutes of one core;
of the cases that are named alone, the others left as they are.

python tools/error_rates.py [CASE ...]
"""

import sys

import pandas as pd

from negmeta_utils.evidence.error_rates import CASES, SEEDS, TABLE, error_rates

N_SEEDS, N_EPISODES, N_TABLES = (3, 5, 8, 12), (300, 40_000), 1000

if __name__ == "__main__":
    named = sys.argv[1:] or list(CASES)
    table = error_rates(SEEDS, N_SEEDS, N_EPISODES, named, N_TABLES)
    if sys.argv[1:]:
        shipped = pd.read_csv(TABLE)
        table = pd.concat([shipped[~shipped["case"].isin(named)], table], ignore_index=True)
    table.to_csv(TABLE, index=False)
    print(table.to_string())

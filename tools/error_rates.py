"""For maintainers: the table of error rates that notebook 4 shows, some ten minutes of one core.

python tools/error_rates.py
"""

from negmeta_utils.evidence.error_rates import CASES, SEEDS, TABLE, error_rates

N_SEEDS, N_EPISODES, N_TABLES = (3, 5, 8, 12), (300, 40_000), 1000

if __name__ == "__main__":
    table = error_rates(SEEDS, N_SEEDS, N_EPISODES, CASES, N_TABLES)
    table.to_csv(TABLE, index=False)
    print(table.to_string())

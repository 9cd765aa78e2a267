"""From tables of episodes to intervals, tests and verdicts. Knows no torch."""

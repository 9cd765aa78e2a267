"""What notebooks 5 to 10 compute: interventions, geometry, uses at test time, linear theory, the
search for the paper's recipe."""

"""What notebooks 5 to 9 compute: interventions, geometry, uses at test time, linear theory."""

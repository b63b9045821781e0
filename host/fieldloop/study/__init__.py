"""Studies: many runs of the learner on real data, their figures, tables and plots."""

"""What people see of runs: a few lines before, a table while they train, the cause of an error.

Everything is read from a run's folder (`recipe.experiment.run`), so that the console of a run that
was started here and `python -m recipe.watch`, on any machine that sees the folder, are the same.
"""

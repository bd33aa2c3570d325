"""Many trainings as one study: a file of a few lines, its jobs, what is done of them, and one table at the end."""

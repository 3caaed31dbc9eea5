"""The study of GaitNet's steps on walkers: what is trained (plan, nets), on whom (people), what each result holds
(scoring), one result (unit), where results lie (folder), what they say (bootstrap, report, picture)."""

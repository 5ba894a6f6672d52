"""⑦ Reading out: tables, SQL, files, a page and a picture, all of what the gate lets through and of nothing else."""

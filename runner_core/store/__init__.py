"""What the program keeps: task packages, workflows, datasets and jobs, in SQLite or another database.

`session` opens a store and gives sessions, `models` are the tables, `queries` read lists for people,
`errors` explains broken constraints.
"""
